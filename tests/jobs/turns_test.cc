// When checkpoints are committed and when a lease is given back, on a clock that the work moves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "jobs/job_queue.h"
#include "jobs/worker.h"
#include "store/directory_blob_store.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

using store::JobState;
using testing::ElementsAre;

// Every chunk of a shard takes as long as the spec says; the partial has a letter of each.
class TimedKind : public JobKind {
 public:
  explicit TimedKind(FakeClock* clock) : clock_(*clock) {}

  // Called before each chunk.
  std::function<absl::Status(ShardContext&, int64_t chunk)> before_chunk;
  std::atomic<int> serialized = 0;

  absl::string_view Name() const override { return "timed"; }

  absl::StatusOr<ShardResult> RunShard(ShardContext& context) override {
    const std::vector<std::string> spec = absl::StrSplit(context.spec(), ' ');
    int64_t chunks = 0, milliseconds = 0, chunk = context.work_done();
    VS_CHECK(absl::SimpleAtoi(spec[0], &chunks) && absl::SimpleAtoi(spec[1], &milliseconds));
    std::string partial = context.TakePartial();
    for (; chunk < chunks; ++chunk) {
      VS_RETURN_IF_ERROR(CheckGoesOn(context.cancellation()));
      if (before_chunk) VS_RETURN_IF_ERROR(before_chunk(context, chunk));
      clock_.Advance(absl::Milliseconds(milliseconds));
      partial += static_cast<char>('a' + chunk % 26);
      if (chunk + 1 == chunks) break;
      VS_RETURN_IF_ERROR(context.Checkpoint(
          [&] {
            ++serialized;
            return partial;
          },
          absl::StrCat(chunk + 1), chunk + 1));
    }
    return ShardResult{.partial = partial, .work_done = chunks};
  }

  absl::StatusOr<JobResult> Merge(const MergeContext& context) override {
    JobResult result;
    VS_ASSIGN_OR_RETURN(result.summary, context.partial(0));
    return result;
  }

  static store::NewJob Job(const std::string& tenant, int64_t chunks, absl::Duration each,
                           int64_t shards = 1) {
    store::NewJob job;
    job.tenant = tenant;
    job.kind = "timed";
    job.spec = absl::StrCat(chunks, " ", absl::ToInt64Milliseconds(each));
    job.num_shards = shards;
    job.total_work = chunks * shards;
    return job;
  }

 private:
  FakeClock& clock_;
};

class TurnsTest : public testing::Test {
 protected:
  void SetUp() override {
    store::SqliteStoreOptions options;
    options.retry.failure_backoff = absl::ZeroDuration();
    store_ = store::OpenSqliteStore(folder_ / "store.db", options).value();
    blobs_ = store::OpenDirectoryBlobStore(folder_ / "blobs").value();
    queue_ = std::make_unique<JobQueue>(store_.get());
  }

  std::unique_ptr<Worker> MakeWorker(WorkerObserver observer = {}) {
    WorkerOptions options;
    options.lease = options.beat = options.sweep = options.poll = kNever;
    options.turns.clock = &clock_;
    options.observer = std::move(observer);
    return std::make_unique<Worker>(queue_.get(), blobs_.get(), std::vector<JobKind*>{&kind_},
                                    options);
  }

  std::string Create(const store::NewJob& job) { return queue_->Create(job, {})->job.id; }

  store::Job Await(const std::string& tenant, const std::string& id, JobState state) {
    const auto snapshot =
        AwaitJob(*queue_, tenant, id, absl::Now() + kPatience,
                 [state](const JobSnapshot& now) { return now.job.state == state; });
    EXPECT_TRUE(snapshot.ok()) << snapshot.status() << " waiting for " << store::NameOf(state);
    return snapshot.ok() ? snapshot->job : store::Job();
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  TimedKind kind_{&clock_};
  std::unique_ptr<store::Store> store_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<JobQueue> queue_;
};

TEST_F(TurnsTest, CheckpointsAreCommittedByTime) {
  std::vector<int64_t> committed;
  kind_.before_chunk = [&](ShardContext& context, int64_t) {
    if (context.shard() == 1) return absl::OkStatus();
    const std::string id = store_->ListJobs("lab", {}, {})->jobs[0].id;
    committed.push_back(store_->GetJob("lab", id)->work_done);
    return absl::OkStatus();
  };
  const std::string id = Create(TimedKind::Job("lab", 7, absl::Milliseconds(800), /*shards=*/2));
  const auto worker = MakeWorker();
  worker->Start();
  const store::Job job = Await("lab", id, JobState::kSucceeded);
  EXPECT_EQ(job.work_done, 14);
  EXPECT_EQ(job.result, "abcdefg");
  EXPECT_THAT(committed, ElementsAre(0, 0, 0, 3, 3, 3, 6));
  EXPECT_EQ(kind_.serialized, 4) << "what is not committed is not made";
}

TEST_F(TurnsTest, AChunkThatIsLongerThanTheIntervalIsCommittedAlways) {
  const std::string id = Create(TimedKind::Job("lab", 4, absl::Seconds(3)));
  const auto worker = MakeWorker();
  worker->Start();
  Await("lab", id, JobState::kSucceeded);
  EXPECT_EQ(kind_.serialized, 3);
}

TEST_F(TurnsTest, ADrainLosesNoChunkThatWasDone) {
  auto worker = MakeWorker();
  absl::Notification drains;
  kind_.before_chunk = [&](ShardContext&, int64_t chunk) {
    if (chunk != 3 || drains.HasBeenNotified()) return absl::OkStatus();
    worker->BeginDrain();
    drains.Notify();
    return absl::OkStatus();
  };
  const std::string id = Create(TimedKind::Job("lab", 8, absl::Milliseconds(1)));
  worker->Start();
  ASSERT_TRUE(drains.WaitForNotificationWithTimeout(kPatience));
  worker->Drain();
  EXPECT_EQ(store_->GetJob("lab", id)->work_done, 4);
  worker = MakeWorker();
  worker->Start();
  const store::Job job = Await("lab", id, JobState::kSucceeded);
  EXPECT_EQ(job.result, "abcdefgh");
  EXPECT_EQ(job.rescues, 0);
}

TEST_F(TurnsTest, ACancelledJobKeepsWhatWasDone) {
  std::atomic<int64_t> chunks = 0;
  std::string id;
  kind_.before_chunk = [&](ShardContext&, int64_t chunk) {
    chunks = chunk + 1;
    return chunk == 3 ? queue_->Cancel("lab", id).status() : absl::OkStatus();
  };
  id = Create(TimedKind::Job("lab", 1'000'000'000, absl::ZeroDuration()));
  const auto worker = MakeWorker();
  worker->Start();
  EXPECT_EQ(Await("lab", id, JobState::kCancelled).work_done, chunks);
}

TEST_F(TurnsTest, AShardThatFailsEachTimeItHasGotOnALittleEnds) {
  kind_.before_chunk = [&, failed = int64_t{-1}](ShardContext&, int64_t chunk) mutable {
    if (chunk % 2 == 0 || failed == chunk) return absl::OkStatus();
    failed = chunk;
    return absl::UnavailableError("a hiccup");
  };
  const std::string id = Create(TimedKind::Job("lab", 20, absl::Milliseconds(1)));
  const auto worker = MakeWorker();
  worker->Start();
  EXPECT_EQ(Await("lab", id, JobState::kSucceeded).result, "abcdefghijklmnopqrst");
}

TEST_F(TurnsTest, AShardGivesWayToHigherPriorityOfItsTenantAndToNobodyElseOfIt) {
  std::string same, urgent;
  std::vector<std::string> order;
  kind_.before_chunk = [&](ShardContext& context, int64_t chunk) {
    const bool is_long = context.spec() == TimedKind::Job("", 40, absl::Seconds(1)).spec;
    if (is_long && chunk == 3) same = Create(TimedKind::Job("lab", 1, absl::Seconds(1)));
    if (is_long && chunk == 25) {
      store::NewJob job = TimedKind::Job("lab", 2, absl::Seconds(1));
      job.priority = 1;
      urgent = Create(job);
    }
    order.push_back(is_long ? absl::StrCat(chunk) : "other");
    return absl::OkStatus();
  };
  const std::string id = Create(TimedKind::Job("lab", 40, absl::Seconds(1)));
  const auto worker = MakeWorker();
  worker->Start();
  EXPECT_EQ(Await("lab", id, JobState::kSucceeded).rescues, 0);
  Await("lab", same, JobState::kSucceeded);
  Await("lab", urgent, JobState::kSucceeded);
  worker->Drain();
  std::vector<std::string> expected;
  for (int chunk = 0; chunk < 40; ++chunk) {
    expected.push_back(absl::StrCat(chunk));
    // Longer than its turn already: others are asked about each second.
    if (chunk == 25) expected.insert(expected.end(), {"other", "other"});
  }
  expected.push_back("other");
  EXPECT_EQ(order, expected);
}

// Tenant A has 300 jobs, one of them of 10^5 responses, 16 a chunk; then B comes with five.
class NeighbourTest : public TurnsTest, public testing::WithParamInterface<bool> {};

TEST_P(NeighbourTest, FiveJobsBesideThreeHundredWaitForTenSecondsOrFifteenDispatches) {
  const bool while_the_long_one_runs = GetParam();
  constexpr absl::Duration kChunk = absl::Milliseconds(1600);
  std::vector<std::string> dispatched;  // tenants, since B came
  std::vector<std::string> of_b;
  absl::Time came;
  absl::Duration own;  // B's
  kind_.before_chunk = [&](ShardContext& context, int64_t chunk) {
    if (context.tenant() == "b") own += kChunk;
    const bool now =
        while_the_long_one_runs ? chunk == 3 : clock_.Now() > absl::FromUnixSeconds(1'700'000'040);
    if (!now || !of_b.empty()) return absl::OkStatus();
    came = clock_.Now();
    for (int i = 0; i < 5; ++i) of_b.push_back(Create(TimedKind::Job("b", 1, kChunk)));
    return absl::OkStatus();
  };
  absl::Notification ended;
  absl::Time ended_at;
  int done = 0;
  const auto worker =
      MakeWorker({.on_step = [&](const store::Lease& lease, absl::Duration, const absl::Status&) {
        if (of_b.empty() || ended.HasBeenNotified()) return;
        dispatched.push_back(lease.tenant);
        if (lease.tenant != "b" || !lease.is_merge() || ++done < 5) return;
        ended_at = clock_.Now();
        ended.Notify();
      }});
  if (while_the_long_one_runs) Create(TimedKind::Job("a", 6250, kChunk));
  for (int i = 0; i < 299; ++i) Create(TimedKind::Job("a", 1, kChunk));
  if (!while_the_long_one_runs) Create(TimedKind::Job("a", 6250, kChunk));
  worker->Start();
  ASSERT_TRUE(ended.WaitForNotificationWithTimeout(kPatience));
  worker->Drain();
  const auto dispatches = std::count(dispatched.begin(), dispatched.end(), "a");
  const absl::Duration delay = ended_at - came - own;
  EXPECT_LE(dispatches, 15);
  EXPECT_LE(delay, absl::Seconds(10) + kChunk) << dispatches << " dispatches";
  for (const std::string& id : of_b) {
    EXPECT_EQ(store_->GetJob("b", id)->state, JobState::kSucceeded);
  }
}

INSTANTIATE_TEST_SUITE_P(Neighbours, NeighbourTest, testing::Bool(), [](const auto& info) {
  return info.param ? "OneLongShard" : "ManyShort";
});

}  // namespace
}  // namespace valuescope::jobs
