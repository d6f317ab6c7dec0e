// A job that is made of other jobs, with the one worker that there is: it waits without holding it,
// and nothing but the end of its parts wakes it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "jobs/job_queue.h"
#include "jobs/worker.h"
#include "store/directory_blob_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;

// Two jobs of letters one after another, the second of which begins when the first is finished.
class WholeKind : public JobKind {
 public:
  absl::string_view Name() const override { return "whole"; }

  absl::StatusOr<ShardResult> RunShard(ShardContext& context) override {
    ++looks;
    VS_ASSIGN_OR_RETURN(const std::vector<store::Job> before, context.Children());
    for (const char* const phase : {"first", "second"}) {
      VS_ASSIGN_OR_RETURN(const store::Job part,
                          context.StartChild(phase, LettersKind::Job("lab", /*shards=*/2)));
      if (part.state == JobState::kFailed) return absl::InvalidArgumentError("a part failed");
      if (part.state == JobState::kSucceeded) continue;
      int64_t ended = 0;
      for (const store::Job& one : before) ended += store::IsFinished(one.state);
      return context.AwaitChildren(absl::StrCat("waits for ", phase), ended, ended);
    }
    partial = context.TakePartial();
    return ShardResult{.partial = "", .work_done = 2};
  }
  absl::StatusOr<JobResult> Merge(const MergeContext&) override {
    JobResult result;
    result.summary = "{}";
    return result;
  }

  int looks = 0;
  std::string partial;  // that the last look went on from
};

class PartsTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = store::OpenSqliteStore(
        folder_ / "store.db",
        {.retry = {.failure_backoff = absl::ZeroDuration()}, .clock = &clock_});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    auto blobs = store::OpenDirectoryBlobStore(folder_ / "blobs");
    ASSERT_TRUE(blobs.ok()) << blobs.status();
    blobs_ = *std::move(blobs);
    queue_ = std::make_unique<JobQueue>(store_.get(), &clock_);
    WorkerOptions options;
    options.lease = options.beat = options.sweep = options.poll = kNever;
    worker_ = std::make_unique<Worker>(queue_.get(), blobs_.get(),
                                       std::vector<JobKind*>{&whole_, &letters_}, options);
  }

  std::string Create() {
    store::NewJob job = LettersKind::Job("lab", /*shards=*/1);
    job.kind = "whole";
    job.total_work = 2;
    job.priority = 7;
    const auto created = queue_->Create(job, {});
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->job.id : "";
  }

  store::Job Await(const std::string& id, JobState state) {
    const auto snapshot =
        AwaitJob(*queue_, "lab", id, absl::Now() + absl::Seconds(30),
                 [state](const JobSnapshot& now) { return now.job.state == state; });
    EXPECT_TRUE(snapshot.ok()) << snapshot.status() << " waiting for " << store::NameOf(state);
    return snapshot.ok() ? snapshot->job : store::Job();
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<JobQueue> queue_;
  WholeKind whole_;
  LettersKind letters_;
  std::unique_ptr<Worker> worker_;
};

TEST_F(PartsTest, OneWorkerFinishesAJobAndItsParts) {
  worker_->Start();
  const std::string id = Create();
  const store::Job job = Await(id, JobState::kSucceeded);
  EXPECT_EQ(job.work_done, 2);
  EXPECT_EQ(job.num_parts, 2);
  const auto parts = queue_->ListChildren("lab", id);
  ASSERT_TRUE(parts.ok() && parts->size() == 2);
  EXPECT_EQ((*parts)[0].phase, "first");
  EXPECT_EQ((*parts)[1].phase, "second");
  EXPECT_EQ((*parts)[0].priority, 7);
  worker_->Drain();
  EXPECT_EQ(whole_.looks, 3);
  EXPECT_EQ(whole_.partial, "waits for second");
}

TEST_F(PartsTest, APartThatFailsIsSeenByTheJobThatItIsOf) {
  letters_.before_chunk = [](ShardContext&, int64_t) -> absl::Status {
    return absl::InvalidArgumentError("the part's own fault");
  };
  worker_->Start();
  const std::string id = Create();
  EXPECT_EQ(Await(id, JobState::kFailed).error->message, "a part failed");
}

TEST_F(PartsTest, ACancelledJobStopsThePartThatRuns) {
  absl::Notification running;
  letters_.before_chunk = [&](ShardContext& context, int64_t chunk) -> absl::Status {
    if (context.shard() == 0 && chunk == 0 && !running.HasBeenNotified()) running.Notify();
    while (!context.cancellation().cancelled()) absl::SleepFor(absl::Milliseconds(1));
    return absl::CancelledError("");
  };
  worker_->Start();
  const std::string id = Create();
  running.WaitForNotification();
  ASSERT_TRUE(queue_->Cancel("lab", id).ok());
  Await(id, JobState::kCancelled);
  const auto parts = queue_->ListChildren("lab", id);
  ASSERT_TRUE(parts.ok() && parts->size() == 1);
  EXPECT_EQ(parts->front().state, JobState::kCancelled);
}

}  // namespace
}  // namespace valuescope::jobs
