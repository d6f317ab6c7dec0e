#include "jobs/job_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "base/clock.h"
#include "store/sqlite_store.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;

class JobQueueTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = store::OpenSqliteStore(folder_ / "store.db", {.clock = &clock_});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    queue_ = std::make_unique<JobQueue>(store_.get(), &clock_);
  }

  store::Lease Take() {
    store::LeaseRequest request;
    request.can_run = {{.kind = "letters", .needs = ""}};
    return store_->LeaseWork(request)->value();
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<JobQueue> queue_;
};

TEST_F(JobQueueTest, AWatcherIsWokenByAChangeAndNotBefore) {
  const auto created = queue_->Create(LettersKind::Job(), {});
  ASSERT_TRUE(created.ok());
  EXPECT_EQ(
      queue_->WaitForChange("lab", created->job.id, created->version, absl::Now()).status().code(),
      absl::StatusCode::kDeadlineExceeded);
  std::thread canceller([&] { EXPECT_TRUE(queue_->Cancel("lab", created->job.id).ok()); });
  const auto changed = queue_->WaitForChange("lab", created->job.id, created->version,
                                             absl::Now() + absl::Seconds(30));
  canceller.join();
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->job.state, JobState::kCancelled);
  EXPECT_GT(changed->version, created->version);
}

TEST_F(JobQueueTest, AChangeBeforeTheWaitIsNotMissed) {
  const auto created = queue_->Create(LettersKind::Job(), {});
  queue_->Announce(created->job.id);
  EXPECT_TRUE(queue_->WaitForChange("lab", created->job.id, created->version, absl::Now()).ok());
}

TEST_F(JobQueueTest, WatchersOfOtherJobsAndTenantsSeeNothing) {
  const auto watched = queue_->Create(LettersKind::Job(), {});
  const auto other = queue_->Create(LettersKind::Job(), {});
  queue_->Announce(other->job.id);
  EXPECT_EQ(
      queue_->WaitForChange("lab", watched->job.id, watched->version, absl::Now()).status().code(),
      absl::StatusCode::kDeadlineExceeded);
  queue_->Announce(watched->job.id);
  EXPECT_EQ(queue_->WaitForChange("stranger", watched->job.id, watched->version, absl::Now())
                .status()
                .code(),
            absl::StatusCode::kNotFound);
}

TEST_F(JobQueueTest, WatchersEndWhenTheJobIsDeletedOrTheServerDrains) {
  const auto created = queue_->Create(LettersKind::Job(), {});
  const auto cancelled = queue_->Cancel("lab", created->job.id);
  ASSERT_TRUE(queue_->Delete("lab", created->job.id).ok());
  EXPECT_EQ(queue_->WaitForChange("lab", created->job.id, cancelled->version, absl::Now())
                .status()
                .code(),
            absl::StatusCode::kNotFound);
  std::thread drain([&] { queue_->StopWaiting(); });
  EXPECT_EQ(
      queue_->WaitForChange("lab", "none", 0, absl::Now() + absl::Seconds(30)).status().code(),
      absl::StatusCode::kCancelled);
  drain.join();
}

TEST_F(JobQueueTest, TheTimeToTheEndFollowsTheObservedSpeed) {
  const std::string id = queue_->Create(LettersKind::Job("lab", /*shards=*/1), {})->job.id;
  EXPECT_EQ(queue_->Get("lab", id)->eta, std::nullopt) << "not running";
  const store::Lease lease = Take();
  EXPECT_EQ(queue_->Get("lab", id)->eta, std::nullopt) << "no speed yet";
  clock_.Advance(absl::Seconds(10));
  ASSERT_TRUE(store_->CommitProgress(lease, {.partial = "", .cursor = "", .work_done = 1}).ok());
  EXPECT_EQ(queue_->Get("lab", id)->eta, absl::Seconds(30)) << "1 of 4 in 10 s";
  clock_.Advance(absl::Seconds(2));
  ASSERT_TRUE(store_->CommitProgress(lease, {.partial = "", .cursor = "", .work_done = 3}).ok());
  EXPECT_EQ(queue_->Get("lab", id)->eta, absl::Seconds(4)) << "3 of 4 in 12 s";
  ASSERT_TRUE(queue_->Cancel("lab", id).ok());
  EXPECT_EQ(queue_->Get("lab", id)->eta, std::nullopt);
}

TEST_F(JobQueueTest, ListenersAreWokenByWhatWorkersMustKnowUntilTheyAreRemoved) {
  int wakes = 0;
  const int64_t listener = queue_->AddListener([&] { ++wakes; });
  const std::string id = queue_->Create(LettersKind::Job(), {})->job.id;
  EXPECT_EQ(wakes, 1);
  ASSERT_TRUE(queue_->Cancel("lab", id).ok());
  EXPECT_EQ(wakes, 2);
  ASSERT_TRUE(queue_->Retry("lab", id, {}).ok());
  EXPECT_EQ(wakes, 3);
  queue_->RemoveListener(listener);
  ASSERT_TRUE(queue_->Cancel("lab", id).ok());
  EXPECT_EQ(wakes, 3);
}

TEST_F(JobQueueTest, AJobSaysWhatItWaitsForAndWatchersHearThatItCame) {
  LettersKind kind;
  absl::Status missing = NotReady("`models/a` is not loaded");
  kind.readiness = [&](absl::string_view needs) {
    return needs == "models/a" ? missing : absl::OkStatus();
  };
  queue_->SetKinds({&kind});
  store::NewJob job = LettersKind::Job();
  EXPECT_EQ(queue_->Create(job, {})->waiting_for, "");
  job.needs = "models/a";
  const auto waiting = queue_->Create(job, {});
  EXPECT_EQ(waiting->waiting_for, "`models/a` is not loaded");
  int wakes = 0;
  const int64_t listener = queue_->AddListener([&] { ++wakes; });
  missing = absl::OkStatus();
  queue_->NeedsChanged();
  EXPECT_EQ(wakes, 1);
  const auto changed = queue_->WaitForChange("lab", waiting->job.id, waiting->version, absl::Now());
  ASSERT_TRUE(changed.ok()) << changed.status();
  EXPECT_EQ(changed->waiting_for, "");
  missing = NotReady("gone again");
  EXPECT_EQ(queue_->Cancel("lab", waiting->job.id)->waiting_for, "") << "it waits no more";
  queue_->RemoveListener(listener);
}

}  // namespace
}  // namespace valuescope::jobs
