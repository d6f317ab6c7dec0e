// Watching a job over lost streams, and what the command line makes of lists and progress.
#include "valuescope/job_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "job_list.h"
#include "job_progress.h"
#include "tests/client_cpp/fake_server.h"
#include "valuescope/client.h"

namespace valuescope {
namespace {

using command_line::ListRequestOf;
using command_line::ParseMoment;
using testing::ElementsAre;
using testing::HasSubstr;

const grpc::Status kAway(grpc::StatusCode::UNAVAILABLE, "restarting");

class FakeJobs : public v1::JobService::Service {
 public:
  // Answers the n-th call, from 0.
  std::function<grpc::Status(int call, const v1::WatchJobRequest&,
                             grpc::ServerWriter<v1::WatchJobResponse>&)>
      watch;

  grpc::Status WatchJob(grpc::ServerContext*, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::WatchJobResponse>* writer) override {
    int call;
    {
      absl::MutexLock lock(&mutex_);
      call = static_cast<int>(last_revisions_.size());
      last_revisions_.push_back(request->last_revision());
    }
    return watch(call, *request, *writer);
  }

  std::vector<int64_t> last_revisions() {
    absl::MutexLock lock(&mutex_);
    return last_revisions_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<int64_t> last_revisions_ ABSL_GUARDED_BY(mutex_);
};

v1::WatchJobResponse Change(int64_t revision, v1::JobState state = v1::JOB_STATE_RUNNING) {
  v1::WatchJobResponse change;
  change.mutable_job()->set_revision(revision);
  change.mutable_job()->set_state(state);
  return change;
}

class JobWatchTest : public testing::Test {
 protected:
  JobWatch Follow(int64_t last_revision = 0, JobWatch::OnLost on_lost = nullptr) {
    v1::WatchJobRequest request;
    request.set_name("jobs/j");
    request.set_last_revision(last_revision);
    return client_.FollowJob(request, {}, std::move(on_lost));
  }

  static std::vector<int64_t> RevisionsOf(JobWatch& watch) {
    std::vector<int64_t> revisions;
    v1::WatchJobResponse change;
    while (watch.Read(&change)) revisions.push_back(change.job().revision());
    return revisions;
  }

  FakeJobs jobs_;
  FakeServer server_{&jobs_};
  std::shared_ptr<NotingClock> clock_ = std::make_shared<NotingClock>();
  Client client_{server_.address(), {.retry = {.attempts = 3}, .clock = clock_}};
};

TEST_F(JobWatchTest, GoesOnBehindWhatItReadAndSaysOnceThatTheServerIsAway) {
  jobs_.watch = [](int call, const v1::WatchJobRequest&, auto& writer) {
    if (call == 0) writer.Write(Change(4));
    if (call == 0 || call < 6) return kAway;
    v1::WatchJobResponse heartbeat = Change(4);
    heartbeat.mutable_heartbeat();
    writer.Write(heartbeat);
    writer.Write(Change(5));
    writer.Write(Change(9, v1::JOB_STATE_SUCCEEDED));
    return grpc::Status::OK;
  };
  std::vector<std::string> lost;
  JobWatch watch = Follow(2, [&](const absl::Status& why) { lost.emplace_back(why.message()); });
  EXPECT_THAT(RevisionsOf(watch), ElementsAre(4, 5, 9));
  EXPECT_TRUE(watch.Finish().ok());
  EXPECT_THAT(jobs_.last_revisions(), ElementsAre(2, 4, 4, 4, 4, 4, 4));
  EXPECT_THAT(lost, ElementsAre(HasSubstr("restarting")));
}

TEST_F(JobWatchTest, WaitsFourTimesAsOftenAsOtherCallsAndThenSaysWhy) {
  jobs_.watch = [](int, const v1::WatchJobRequest&, auto&) { return kAway; };
  JobWatch watch = Follow();
  v1::WatchJobResponse change;
  EXPECT_FALSE(watch.Read(&change));
  EXPECT_TRUE(absl::IsUnavailable(watch.Finish()));
  EXPECT_EQ(jobs_.last_revisions().size(), 12u);
}

TEST_F(JobWatchTest, ALostStreamBehindTheEndOfTheJobIsNoLoss) {
  jobs_.watch = [](int, const v1::WatchJobRequest&, auto& writer) {
    writer.Write(Change(3, v1::JOB_STATE_FAILED));
    return kAway;
  };
  JobWatch watch = Follow();
  EXPECT_THAT(RevisionsOf(watch), ElementsAre(3));
  EXPECT_TRUE(watch.Finish().ok());
  EXPECT_EQ(jobs_.last_revisions().size(), 1u);
}

TEST_F(JobWatchTest, AnErrorThatStaysEndsIt) {
  jobs_.watch = [](int, const v1::WatchJobRequest&, auto&) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such job");
  };
  JobWatch watch = Follow();
  EXPECT_TRUE(absl::IsNotFound(watch.Finish()));
  EXPECT_EQ(jobs_.last_revisions().size(), 1u);
}

TEST_F(JobWatchTest, DroppingItCancelsTheCall) {
  absl::Notification cancelled;
  jobs_.watch = [&](int, const v1::WatchJobRequest&, auto& writer) {
    while (writer.Write(Change(1))) {
    }
    cancelled.Notify();
    return grpc::Status::OK;
  };
  {
    JobWatch watch = Follow();
    v1::WatchJobResponse change;
    EXPECT_TRUE(watch.Read(&change));
  }
  EXPECT_TRUE(cancelled.WaitForNotificationWithTimeout(absl::Seconds(30)));
}

TEST(JobListTest, MomentsAreDatesTimesOrHowLongAgo) {
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  EXPECT_EQ(*ParseMoment("36h", now), now - absl::Hours(36));
  EXPECT_EQ(*ParseMoment("2d", now), now - absl::Hours(48));
  EXPECT_EQ(*ParseMoment("2027-01-15", now), absl::FromUnixSeconds(1'799'971'200));
  EXPECT_EQ(*ParseMoment("2027-01-15T09:00:00+01:00", now), now);
  for (const char* wrong : {"", "noon", "-1h", "2027-13-01", "-2d"}) {
    EXPECT_FALSE(ParseMoment(wrong, now).ok()) << wrong;
  }
}

TEST(JobListTest, FlagsBecomeTheRequestAndWrongOnesAreNamed) {
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  const auto request = ListRequestOf({.states = {"Queued", "failed"},
                                      .kind = "k",
                                      .model = "m",
                                      .display_name = "n",
                                      .created_after = "1s",
                                      .created_before = ""},
                                     now);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->states(), ElementsAre(v1::JOB_STATE_QUEUED, v1::JOB_STATE_FAILED));
  EXPECT_EQ(request->model(), "models/m");
  EXPECT_EQ(request->display_name_prefix(), "n");
  EXPECT_EQ(request->created_after().seconds(), 1'799'999'999);
  EXPECT_FALSE(request->has_created_before());
  EXPECT_THAT(std::string(ListRequestOf({.states = {"waiting"}}, now).status().message()),
              HasSubstr("queued, running, cancelling, succeeded, failed, cancelled"));
  EXPECT_THAT(std::string(ListRequestOf({.created_before = "x"}, now).status().message()),
              HasSubstr("--created_before"));
}

TEST(JobProgressTest, ALineHasStateUnitsTimeAndStatistics) {
  v1::Job job;
  job.set_state(v1::JOB_STATE_RUNNING);
  v1::JobProgress& progress = *job.mutable_progress();
  progress.set_done(32);
  progress.set_total(128);
  progress.set_unit("responses");
  progress.mutable_eta()->set_seconds(90);
  v1::PartialStatistic& count = *progress.add_statistics();
  count.set_name("num_expressing");
  count.set_value(12);
  v1::PartialStatistic& mean = *progress.add_statistics();
  mean.set_name("norm");
  mean.set_layer(3);
  mean.set_value(41.25);
  mean.set_standard_error(0.75);
  EXPECT_EQ(command_line::ProgressText(job),
            "running    32/128 responses  25%  ETA 1m30s  num_expressing 12  norm@3 41.25 +- 0.75");
}

}  // namespace
}  // namespace valuescope
