#include "jobs/worker.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <new>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/thread_cancellation.h"
#include "jobs/job_queue.h"
#include "store/directory_blob_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;
using testing::IsEmpty;

// Long enough that nothing happens because time passed: whatever a test sees was caused.

class WorkerTest : public testing::Test {
 protected:
  void SetUp() override { Open({}); }

  void Open(const TenantPolicies& tenants) {
    queue_.reset();
    store_.reset();
    auto store = store::OpenSqliteStore(folder_ / "store.db",
                                        {.retry = {.failure_backoff = absl::ZeroDuration()},
                                         .clock = &clock_,
                                         .tenants = std::make_shared<TenantPolicySource>(tenants)});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    blobs_.reset();
    auto blobs = store::OpenDirectoryBlobStore(folder_ / "blobs");
    ASSERT_TRUE(blobs.ok()) << blobs.status();
    blobs_ = *std::move(blobs);
    queue_ = std::make_unique<JobQueue>(store_.get(), &clock_);
  }

  // Every checkpoint is committed.
  static WorkerOptions Patient() {
    WorkerOptions options;
    options.lease = options.beat = options.sweep = options.poll = kNever;
    options.turns.commit_interval = absl::ZeroDuration();
    return options;
  }

  std::unique_ptr<Worker> MakeWorker(JobKind* kind, WorkerOptions options = Patient()) {
    return std::make_unique<Worker>(queue_.get(), blobs_.get(), std::vector<JobKind*>{kind},
                                    std::move(options));
  }

  // Watches the job until it is in `state`.
  store::Job Await(const std::string& id, JobState state) {
    const auto snapshot =
        AwaitJob(*queue_, "lab", id, absl::Now() + kPatience,
                 [state](const JobSnapshot& now) { return now.job.state == state; });
    EXPECT_TRUE(snapshot.ok()) << snapshot.status() << " waiting for " << store::NameOf(state);
    return snapshot.ok() ? snapshot->job : store::Job();
  }

  // When the only lease there is runs out, as another program reads it from the database.
  absl::Time LeaseEnd() {
    SQLite::Database database(folder_ / "store.db", SQLite::OPEN_READONLY);
    return absl::FromUnixMicros(
        database.execAndGet("SELECT expires_at FROM steps WHERE state = 1").getInt64());
  }

  std::string Create(const store::NewJob& job) {
    const auto created = queue_->Create(job, {});
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->job.id : "";
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<JobQueue> queue_;
};

TEST_F(WorkerTest, RunsAJobThatIsCreatedWhileItWaitsAndStoresTheArtifact) {
  LettersKind kind;
  auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/3));
  const store::Job job = Await(id, JobState::kSucceeded);
  EXPECT_EQ(job.result, "{\"shards\":3}");
  EXPECT_EQ(job.work_done, 12);
  const auto artifact = store_->GetResource("lab", store::ResourceKind::kArtifact, id + ".letters");
  ASSERT_TRUE(artifact.ok()) << artifact.status();
  EXPECT_EQ(artifact->role, "letters");
  EXPECT_EQ(artifact->media_type, "text/plain");
  EXPECT_EQ(*store::ReadBlob(*blobs_, artifact->blob_digest, 100), "abcd|efgh|ijkl");
}

TEST_F(WorkerTest, SeveralWorkersShareTheShardsAndOneMerges) {
  LettersKind kind;
  std::atomic<int> merges = 0;
  WorkerOptions options = Patient();
  options.observer.on_step = [&](const store::Lease& lease, absl::Duration,
                                 const absl::Status& status) {
    EXPECT_TRUE(status.ok()) << status;
    merges += lease.is_merge();
  };
  // A worker that finds nothing to do must see by itself when the merge has become ready.
  options.poll = absl::Milliseconds(10);
  auto first = MakeWorker(&kind, options);
  auto second = MakeWorker(&kind, options);
  first->Start();
  second->Start();
  Await(Create(LettersKind::Job()), JobState::kSucceeded);
  first->Drain();
  second->Drain();
  EXPECT_EQ(merges, 1);
  const auto computed = kind.computed();
  EXPECT_EQ(std::set<std::string>(computed.begin(), computed.end()).size(), 48u);
  EXPECT_EQ(computed.size(), 48u) << "no chunk twice";
}

TEST_F(WorkerTest, CancelStopsTheRunningShardBetweenItsChunks) {
  LettersKind kind;
  absl::Notification started;
  kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
    if (chunk != 1) return absl::OkStatus();
    started.Notify();
    // The chunk in flight: it ends only when somebody tells it to, long before any beat.
    while (!context.cancellation().cancelled()) std::this_thread::yield();
    return absl::OkStatus();
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create(LettersKind::Job());
  ASSERT_TRUE(started.WaitForNotificationWithTimeout(kPatience));
  const auto cancelled = queue_->Cancel("lab", id);
  ASSERT_TRUE(cancelled.ok());
  const store::Job job = Await(id, JobState::kCancelled);
  EXPECT_EQ(job.work_done, 2) << "what was done before, and the chunk in flight, stays";
  EXPECT_EQ(job.rescues, 0);
}

TEST_F(WorkerTest, WhatAShardWaitsForElsewhereHearsThatItIsCancelled) {
  LettersKind kind;
  absl::Notification started;
  kind.before_chunk = [&](ShardContext&, int64_t) {
    started.Notify();
    while (ThreadCancellation::CheckGoesOn().ok()) std::this_thread::yield();
    return ThreadCancellation::CheckGoesOn();
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create(LettersKind::Job());
  ASSERT_TRUE(started.WaitForNotificationWithTimeout(kPatience));
  ASSERT_TRUE(queue_->Cancel("lab", id).ok());
  EXPECT_EQ(Await(id, JobState::kCancelled).rescues, 0);
}

TEST_F(WorkerTest, DrainGivesTheShardBackWithoutBlameAndTheNextWorkerGoesOnFromItsCursor) {
  LettersKind kind;
  absl::Notification started;
  kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
    if (context.shard() != 1 || chunk != 2) return absl::OkStatus();
    started.Notify();
    while (!context.cancellation().cancelled()) std::this_thread::yield();
    return absl::CancelledError("draining");
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/3));
  ASSERT_TRUE(started.WaitForNotificationWithTimeout(kPatience));
  worker->Drain();
  const store::Job drained = queue_->Get("lab", id)->job;
  EXPECT_EQ(drained.state, JobState::kRunning);
  EXPECT_EQ(drained.shards_done, 1);
  EXPECT_EQ(drained.work_done, 6);

  LettersKind rest;
  auto next = MakeWorker(&rest);
  next->Start();
  EXPECT_EQ(Await(id, JobState::kSucceeded).rescues, 0);
  EXPECT_THAT(rest.computed(), testing::ElementsAre("1.2", "1.3", "2.0", "2.1", "2.2", "2.3"));
}

TEST_F(WorkerTest, AUserErrorFailsTheJobAtTheFirstTry) {
  LettersKind kind;
  std::atomic<int> tries = 0;
  kind.before_chunk = [&](ShardContext&, int64_t) {
    ++tries;
    return InvalidField("spec.layers", "must be below 30");
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const store::Job job = Await(Create(LettersKind::Job()), JobState::kFailed);
  EXPECT_EQ(job.error->code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(job.error->reason, "INVALID_FIELD");
  EXPECT_EQ(job.error->shard, 0);
  EXPECT_EQ(tries, 1);
}

TEST_F(WorkerTest, AResultThatItsTenantMayNotStoreFailsTheJobUntilThereIsRoom) {
  Open({.others = {.max_stored_bytes = 100}, .named = {}});
  ASSERT_TRUE(store_
                  ->PutResources("lab",
                                 {{.kind = store::ResourceKind::kVector,
                                   .id = "v",
                                   .digest = std::string(64, 'a'),
                                   .metadata = std::string(90, 'm')}},
                                 {})
                  .ok());
  clock_.Advance(absl::Seconds(1));
  LettersKind kind;
  std::atomic<int> merged = 0;
  kind.before_merged = [&](int64_t) { ++merged; };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/3));
  const store::Job job = Await(id, JobState::kFailed);
  EXPECT_EQ(job.error->code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(job.error->reason, "STORAGE_QUOTA");
  EXPECT_THAT(job.error->message, testing::HasSubstr("`vectors/v`"));
  EXPECT_EQ(merged, 3) << "tried once";
  ASSERT_TRUE(store_->DeleteResource("lab", store::ResourceKind::kVector, "v").ok());
  ASSERT_TRUE(queue_->Retry("lab", id, {}).ok());
  Await(id, JobState::kSucceeded);
  EXPECT_EQ(kind.computed().size(), 12u) << "no shard ran again";
}

TEST_F(WorkerTest, AnInfrastructureErrorIsTriedAgainAndThenFailsTheJob) {
  LettersKind kind;
  std::atomic<int> tries = 0;
  kind.before_chunk = [&](ShardContext& context, int64_t) {
    if (context.shard() != 0) return absl::OkStatus();
    ++tries;
    return absl::ResourceExhaustedError("out of device memory");
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const store::Job job = Await(Create(LettersKind::Job()), JobState::kFailed);
  EXPECT_EQ(job.error->code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(tries, 3);
}

// More often than a shard is tried: that others hold what it needs is nobody's fault.
TEST_F(WorkerTest, AShardThatMayTryAgainLaterIsTriedUntilItCan) {
  LettersKind kind;
  std::atomic<int> refused = 0;
  kind.before_chunk = [&](ShardContext& context, int64_t chunk) {
    const bool busy = context.shard() == 0 && chunk == 1 && refused < 10;
    if (!busy) return absl::OkStatus();
    ++refused;
    return RetryLater("MEMORY_FULL", "others have it", absl::Milliseconds(1));
  };
  WorkerOptions options = Patient();
  options.poll = absl::Milliseconds(1);
  auto worker = MakeWorker(&kind, options);
  worker->Start();
  Await(Create(LettersKind::Job("lab", 2)), JobState::kSucceeded);
  EXPECT_EQ(refused, 10);
}

TEST_F(WorkerTest, AKindThatThrowsFailsItsJobAndTheWorkerGoesOn) {
  LettersKind kind;
  std::atomic<bool> throws = true;
  kind.before_chunk = [&](ShardContext&, int64_t) -> absl::Status {
    if (throws) throw std::bad_alloc();
    return absl::OkStatus();
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const store::Job failed = Await(Create(LettersKind::Job("lab", 1)), JobState::kFailed);
  ASSERT_TRUE(failed.error.has_value());
  EXPECT_EQ(failed.error->reason, "SHARD_THREW");
  throws = false;
  Await(Create(LettersKind::Job("lab", 1)), JobState::kSucceeded);
}

TEST_F(WorkerTest, AnInfrastructureErrorThatPassesLeavesNoTrace) {
  LettersKind kind;
  std::atomic<int> tries = 0;
  kind.before_chunk = [&](ShardContext&, int64_t chunk) {
    return chunk == 2 && ++tries == 1 ? absl::UnavailableError("a hiccup") : absl::OkStatus();
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/1));
  Await(id, JobState::kSucceeded);
  EXPECT_THAT(kind.computed(), testing::ElementsAre("0.0", "0.1", "0.2", "0.3"));
}

TEST_F(WorkerTest, AWorkerThatLostItsLeaseIsStoppedAndItsLateCommitRefused) {
  LettersKind slow;
  absl::Notification started, resumed;
  absl::Status late;
  slow.before_chunk = [&](ShardContext& context, int64_t chunk) {
    if (chunk != 1) return absl::OkStatus();
    started.Notify();
    resumed.WaitForNotification();
    late = context.Checkpoint([] { return std::string("late"); }, "99", 99);
    return late;
  };
  auto stalled = MakeWorker(&slow);
  stalled->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/1));
  ASSERT_TRUE(started.WaitForNotificationWithTimeout(kPatience));

  // A beat that was on its way may extend the lease once more; then there is none for an hour. The
  // worker's own first sweep may be the one that finds it.
  do {
    clock_.Advance(kNever);
    ASSERT_TRUE(store_->Sweep().ok());
  } while (queue_->Get("lab", id)->job.rescues == 0);
  LettersKind quick;
  auto rescuer = MakeWorker(&quick);
  rescuer->Start();
  const store::Job job = Await(id, JobState::kSucceeded);
  EXPECT_EQ(job.rescues, 1);
  EXPECT_THAT(quick.computed(), testing::ElementsAre("0.1", "0.2", "0.3"));
  resumed.Notify();
  stalled->Drain();
  EXPECT_EQ(DetailsOf(late).reason, "LEASE_LOST");
  EXPECT_EQ(queue_->Get("lab", id)->job.state, JobState::kSucceeded);
}

TEST_F(WorkerTest, TheBeatKeepsALeaseThatIsShorterThanItsShard) {
  LettersKind kind;
  absl::Notification started, outlived;
  kind.before_chunk = [&](ShardContext&, int64_t chunk) {
    if (chunk != 1) return absl::OkStatus();
    started.Notify();
    outlived.WaitForNotification();
    return absl::OkStatus();
  };
  WorkerOptions options = Patient();
  options.lease = absl::Seconds(30);
  options.beat = absl::Milliseconds(5);
  auto worker = MakeWorker(&kind, options);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/1));
  ASSERT_TRUE(started.WaitForNotificationWithTimeout(kPatience));
  // Ten times 20 s pass, much longer in all than the lease, and each time a beat comes.
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(absl::Seconds(20));
    const absl::Time deadline = absl::Now() + kPatience;
    while (LeaseEnd() < clock_.Now() + options.lease && absl::Now() < deadline) {
      std::this_thread::yield();
    }
    EXPECT_THAT(*store_->Sweep(), IsEmpty());
  }
  outlived.Notify();
  EXPECT_EQ(Await(id, JobState::kSucceeded).rescues, 0);
}

TEST_F(WorkerTest, TheSweepRemovesTheBytesOfDeletedJobs) {
  LettersKind kind;
  WorkerOptions options = Patient();
  options.sweep = absl::Milliseconds(1);
  options.orphan_grace = absl::ZeroDuration();
  auto worker = MakeWorker(&kind, options);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/1));
  Await(id, JobState::kSucceeded);
  const std::string digest =
      store_->GetResource("lab", store::ResourceKind::kArtifact, id + ".letters")->blob_digest;
  ASSERT_TRUE(blobs_->Size(digest).ok());
  ASSERT_TRUE(queue_->Delete("lab", id).ok());
  const absl::Time deadline = absl::Now() + kPatience;
  while (blobs_->Size(digest).ok() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(WorkerTest, WorkThatIsNotReadyWaitsWithoutALeaseAndRunsOnceItIs) {
  LettersKind kind;
  std::atomic<bool> ready = false;
  kind.readiness = [&](absl::string_view needs) {
    return needs.empty() || ready ? absl::OkStatus() : NotReady("`models/a` is not loaded");
  };
  queue_->SetKinds({&kind});
  auto worker = MakeWorker(&kind);
  worker->Start();
  store::NewJob needy = LettersKind::Job("lab", /*shards=*/1);
  needy.needs = "models/a";
  needy.priority = 100;
  const std::string waiting = Create(needy), cancelled = Create(needy);
  Await(Create(LettersKind::Job("lab", /*shards=*/1)), JobState::kSucceeded);
  EXPECT_EQ(queue_->Get("lab", waiting)->job.state, JobState::kQueued);
  EXPECT_EQ(queue_->Get("lab", waiting)->waiting_for, "`models/a` is not loaded");
  EXPECT_EQ(queue_->Cancel("lab", cancelled)->job.state, JobState::kCancelled) << "at once";
  ready = true;
  queue_->NeedsChanged();
  Await(waiting, JobState::kSucceeded);
}

TEST_F(WorkerTest, AShardWhoseNeedsGoAwayIsGivenBackWithoutBlameAndGoesOnFromItsCursor) {
  LettersKind kind;
  std::atomic<bool> ready = true;
  std::atomic<int> losses = 0;
  kind.readiness = [&](absl::string_view) { return ready ? absl::OkStatus() : NotReady("gone"); };
  // More often than a shard may fail.
  kind.before_chunk = [&](ShardContext&, int64_t chunk) {
    if (chunk != 2 || losses == 5) return absl::OkStatus();
    ++losses;
    ready = false;
    return NotReady("gone");
  };
  queue_->SetKinds({&kind});
  std::atomic<int> steps = 0;
  WorkerOptions options = Patient();
  options.observer.on_step = [&](const store::Lease&, absl::Duration, const absl::Status&) {
    ++steps;
  };
  auto worker = MakeWorker(&kind, options);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/1));
  for (int lost = 1; lost <= 5; ++lost) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (steps < lost && absl::Now() < deadline) std::this_thread::yield();
    ASSERT_EQ(steps, lost);
    EXPECT_EQ(queue_->Get("lab", id)->waiting_for, "gone");
    EXPECT_EQ(queue_->Get("lab", id)->job.state, JobState::kRunning);
    ready = true;
    queue_->NeedsChanged();
  }
  EXPECT_EQ(Await(id, JobState::kSucceeded).rescues, 0);
  EXPECT_THAT(kind.computed(), testing::ElementsAre("0.0", "0.1", "0.2", "0.3"));
}

TEST_F(WorkerTest, AnExceptionOutsideAShardIsReportedAndTheWorkerGoesOn) {
  LettersKind kind;
  std::atomic<int> asked = 0;
  kind.readiness = [&](absl::string_view) {
    if (++asked == 1) throw std::bad_alloc();
    return absl::OkStatus();
  };
  std::atomic<int> reports = 0;
  WorkerOptions options = Patient();
  options.poll = absl::Milliseconds(1);
  options.observer.on_store_error = [&](const absl::Status& status) {
    reports += DetailsOf(status).reason == "WORKER_THREW";
  };
  auto worker = MakeWorker(&kind, options);
  worker->Start();
  Await(Create(LettersKind::Job("lab", /*shards=*/1)), JobState::kSucceeded);
  EXPECT_EQ(reports, 1);
}

TEST_F(WorkerTest, AShardThatIgnoresItsCancellationDoesNotHoldUpWhoDrainsWithADeadline) {
  LettersKind kind;
  absl::Notification started, released;
  kind.before_chunk = [&](ShardContext&, int64_t chunk) {
    if (chunk != 1) return absl::OkStatus();
    started.Notify();
    released.WaitForNotification();
    return absl::CancelledError("at last");
  };
  auto worker = MakeWorker(&kind);
  worker->Start();
  const std::string id = Create(LettersKind::Job("lab", /*shards=*/1));
  ASSERT_TRUE(started.WaitForNotificationWithTimeout(kPatience));
  worker->BeginDrain();
  EXPECT_FALSE(worker->Drain(absl::Now()));
  LeaseEnd();  // throws where the lease was let go of
  released.Notify();
  EXPECT_TRUE(worker->Drain());
  EXPECT_EQ(queue_->Get("lab", id)->job.rescues, 0);
  LettersKind rest;
  auto next = MakeWorker(&rest);
  next->Start();
  EXPECT_EQ(Await(id, JobState::kSucceeded).rescues, 0);
}

TEST_F(WorkerTest, ScansFindBytesThatNeverHadAName) {
  LettersKind kind;
  WorkerOptions options = Patient();
  options.sweep = options.scan = absl::Milliseconds(1);
  options.orphan_grace = absl::ZeroDuration();
  options.blobs_a_scan = 2;
  store::NewJob job = LettersKind::Job("lab", /*shards=*/1);
  job.blobs = {store::WriteBlob(*blobs_, "what a job reads")->digest};
  const std::string id = Create(job);
  std::vector<std::string> left;
  for (int i = 0; i < 5; ++i) {
    left.push_back(store::WriteBlob(*blobs_, absl::StrCat("left by a failed call ", i))->digest);
  }
  auto worker = MakeWorker(&kind, options);
  worker->Start();
  const absl::Time deadline = absl::Now() + kPatience;
  for (const std::string& digest : left) {
    while (blobs_->Size(digest).ok() && absl::Now() < deadline) std::this_thread::yield();
    EXPECT_EQ(blobs_->Size(digest).status().code(), absl::StatusCode::kNotFound);
  }
  EXPECT_TRUE(blobs_->Size(job.blobs[0]).ok());
  Await(id, JobState::kSucceeded);
  ASSERT_TRUE(queue_->Delete("lab", id).ok());
  while (blobs_->Size(job.blobs[0]).ok() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(blobs_->Size(job.blobs[0]).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace valuescope::jobs
