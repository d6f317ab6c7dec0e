#include "jobs/job_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
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

// A watcher, and how often it was woken.
struct Watching {
  Watching(JobQueue& queue, absl::string_view tenant, absl::string_view id)
      : watcher(queue.Watch(tenant, id, [this] { ++wakes; })) {}
  // The job's state if it changed.
  std::optional<JobState> Take() {
    const auto change = watcher->TakeChange();
    EXPECT_TRUE(change.ok()) << change.status();
    if (!change.ok() || !*change) return std::nullopt;
    return (*change)->job.state;
  }

  std::atomic<int> wakes = 0;
  std::unique_ptr<JobWatcher> watcher;
};

TEST_F(JobQueueTest, AWatcherIsWokenByAChangeAndNotBefore) {
  const std::string id = queue_->Create(LettersKind::Job(), {})->job.id;
  Watching watching(*queue_, "lab", id);
  EXPECT_EQ(watching.Take(), JobState::kQueued);
  EXPECT_EQ(watching.Take(), std::nullopt);
  EXPECT_EQ(watching.wakes, 0);
  ASSERT_TRUE(queue_->Cancel("lab", id).ok());
  EXPECT_EQ(watching.wakes, 1);
  EXPECT_EQ(watching.Take(), JobState::kCancelled);
  EXPECT_EQ(watching.Take(), std::nullopt);
}

TEST_F(JobQueueTest, AWatcherOnAnotherThreadSeesTheLastState) {
  const std::string id = queue_->Create(LettersKind::Job(), {})->job.id;
  std::thread canceller([&] { EXPECT_TRUE(queue_->Cancel("lab", id).ok()); });
  const auto ended =
      AwaitJob(*queue_, "lab", id, absl::Now() + absl::Seconds(30),
               [](const JobSnapshot& now) { return store::IsFinished(now.job.state); });
  canceller.join();
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_EQ(ended->job.state, JobState::kCancelled);
}

TEST_F(JobQueueTest, WatchersOfOtherJobsAndTenantsSeeNothing) {
  const std::string watched = queue_->Create(LettersKind::Job(), {})->job.id;
  const std::string other = queue_->Create(LettersKind::Job(), {})->job.id;
  Watching watching(*queue_, "lab", watched);
  EXPECT_NE(watching.Take(), std::nullopt);
  queue_->Announce(other);
  EXPECT_EQ(watching.wakes, 0);
  EXPECT_EQ(watching.Take(), std::nullopt);
  Watching stranger(*queue_, "stranger", watched);
  EXPECT_EQ(stranger.watcher->TakeChange().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobQueueTest, WatchersOfADeletedJobHearThatItIsGoneAndLeaveNothingBehind) {
  const std::string id = queue_->Create(LettersKind::Job(), {})->job.id;
  Watching watching(*queue_, "lab", id);
  {
    Watching leaver(*queue_, "lab", id);
    EXPECT_NE(leaver.Take(), std::nullopt);
  }
  ASSERT_TRUE(queue_->Cancel("lab", id).ok());
  EXPECT_EQ(watching.Take(), JobState::kCancelled);
  ASSERT_TRUE(queue_->Delete("lab", id).ok());
  EXPECT_EQ(watching.wakes, 2);
  EXPECT_EQ(watching.watcher->TakeChange().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobQueueTest, TheWatchersOfAJobReadItOnceAChange) {
  const std::string id = queue_->Create(LettersKind::Job(), {})->job.id;
  Watching first(*queue_, "lab", id), second(*queue_, "lab", id);
  EXPECT_EQ(first.Take(), JobState::kQueued);
  // Untold, so that whoever reads the store betrays himself.
  ASSERT_TRUE(store_->RequestCancel("lab", id).ok());
  EXPECT_EQ(second.Take(), JobState::kQueued);
  queue_->Announce(id);
  EXPECT_EQ(first.Take(), JobState::kCancelled);
  EXPECT_EQ(second.Take(), JobState::kCancelled);
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

TEST_F(JobQueueTest, WorkIsListedAnewOnceListenersWereWokenOrSomebodyForgotIt) {
  EXPECT_TRUE(queue_->ListWork()->empty());
  ASSERT_TRUE(queue_->Create(LettersKind::Job(), {}).ok());
  EXPECT_EQ(queue_->ListWork()->size(), 1u);
  store::NewJob behind_its_back = LettersKind::Job();
  behind_its_back.needs = "models/x";
  ASSERT_TRUE(store_->CreateJob(behind_its_back, {}).ok());
  queue_->ForgetWork();
  EXPECT_EQ(queue_->ListWork()->size(), 2u);
}

TEST_F(JobQueueTest, JobsAreCountedAgainAfterAMoment) {
  for (int64_t jobs = 1; jobs <= 2; ++jobs) {
    ASSERT_TRUE(queue_->Create(LettersKind::Job(), {}).ok());
    // Of one tenant, kind and state.
    while (queue_->CountJobs()->at(0).count != jobs) std::this_thread::yield();
  }
}

TEST_F(JobQueueTest, AJobOfAKindThatThisVersionLacksWaitsAndSaysSo) {
  LettersKind kind;
  queue_->SetKinds({&kind});
  store::NewJob job = LettersKind::Job();
  job.kind = "numbers";
  const auto waiting = queue_->Create(job, {});
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  EXPECT_EQ(waiting->waiting_for, "this version of the server has no jobs of kind numbers");
  EXPECT_EQ(queue_->Cancel("lab", waiting->job.id)->waiting_for, "");
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
  Watching watching(*queue_, "lab", waiting->job.id);
  EXPECT_NE(watching.Take(), std::nullopt);
  int wakes = 0;
  const int64_t listener = queue_->AddListener([&] { ++wakes; });
  missing = absl::OkStatus();
  queue_->NeedsChanged();
  EXPECT_EQ(wakes, 1);
  EXPECT_EQ(watching.wakes, 1);
  const auto changed = watching.watcher->TakeChange();
  ASSERT_TRUE(changed.ok() && *changed) << changed.status();
  EXPECT_EQ((*changed)->waiting_for, "");
  missing = NotReady("gone again");
  EXPECT_EQ(queue_->Cancel("lab", waiting->job.id)->waiting_for, "") << "it waits no more";
  queue_->RemoveListener(listener);
}

}  // namespace
}  // namespace valuescope::jobs
