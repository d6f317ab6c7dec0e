// What the queue costs in SQLite, counted in what it does rather than in time: steps of its virtual
// machine, and syncs of the disk.
#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "base/sha256.h"
#include "store/sqlite_database.h"
#include "store/sqlite_store.h"
#include "tests/store/any_work.h"
#include "tests/store/counting_disk.h"
#include "tests/store/many_jobs.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

// Counts steps of the virtual machine of all statements of databases that are opened while it
// lives.
class StepCounter {
 public:
  StepCounter() { sqlite3_auto_extension(reinterpret_cast<void (*)()>(Attach)); }
  ~StepCounter() { sqlite3_cancel_auto_extension(reinterpret_cast<void (*)()>(Attach)); }

  // That `work` takes.
  template <typename Work>
  static int64_t Of(const Work& work) {
    const int64_t before = steps_;
    work();
    return steps_ - before;
  }

 private:
  static int Attach(sqlite3* database, char**, const sqlite3_api_routines*) {
    return sqlite3_trace_v2(
        database, SQLITE_TRACE_PROFILE,
        [](unsigned, void*, void* statement, void*) {
          steps_ += sqlite3_stmt_status(static_cast<sqlite3_stmt*>(statement),
                                        SQLITE_STMTSTATUS_VM_STEP, /*resetFlg=*/1);
          return 0;
        },
        nullptr);
  }

  static inline std::atomic<int64_t> steps_ = 0;
};

NewJob Count(const std::string& tenant, int64_t shards = 1) {
  NewJob job;
  job.tenant = tenant;
  job.kind = "count";
  job.num_shards = shards;
  return job;
}

TEST(SqliteCostsTest, ALeaseAmongManyQueuedJobsTakesNoMoreStepsThanAmongFew) {
  TemporaryFolder folder;
  const std::string path = folder / "store.db";
  const StepCounter counter;
  auto store = OpenSqliteStore(path).value();
  const std::string of_lab = store->CreateJob(Count("lab"), {})->id;
  const std::string of_other = store->CreateJob(Count("other"), {})->id;
  SQLite::Database beside(path, SQLite::OPEN_READWRITE);
  const auto steps_of_a_shard = [&] {
    return StepCounter::Of([&] {
      EXPECT_EQ(store->ListWork()->size(), 1u);
      const std::optional<Lease> lease = *store->LeaseWork(kAnyWork);
      ASSERT_TRUE(lease);
      EXPECT_TRUE(store->OthersWait(*lease, kAnyWork).ok());
      EXPECT_TRUE(store->CommitProgress(*lease, {.partial = "p"}).ok());
      EXPECT_TRUE(store->CompleteShard(*lease, {.partial = "p"}).ok());
    });
  };
  beside.exec(CopiesOfJob(of_lab, 100));
  ASSERT_GT(steps_of_a_shard(), 100) << "or nothing is counted";
  const int64_t among_few = steps_of_a_shard();
  beside.exec(CopiesOfJob(of_other, 20'000));
  const int64_t among_many = steps_of_a_shard();
  EXPECT_LE(among_many, among_few * 3 / 2);
}

TEST(SqliteCostsTest, AShardOfALongJobTakesNoMoreStepsThanOneOfAShortJob) {
  TemporaryFolder folder;
  const StepCounter counter;
  auto store = OpenSqliteStore(folder / "store.db").value();
  const auto steps_of_a_shard = [&](int64_t done_before) {
    for (int64_t i = 0; i < done_before; ++i) {
      EXPECT_TRUE(store->CompleteShard(**store->LeaseWork(kAnyWork), {}).ok());
    }
    return StepCounter::Of(
        [&] { EXPECT_TRUE(store->CompleteShard(**store->LeaseWork(kAnyWork), {}).ok()); });
  };
  ASSERT_TRUE(store->CreateJob(Count("lab", 3), {}).ok());
  const int64_t of_a_short = steps_of_a_shard(/*done_before=*/1);
  ASSERT_TRUE(store->RequestCancel("lab", store->ListJobs("lab", {}, {})->jobs[0].id).ok());
  ASSERT_TRUE(store->CreateJob(Count("lab", 20'000), {}).ok());
  EXPECT_LE(steps_of_a_shard(/*done_before=*/50), of_a_short * 3 / 2);
}

TEST(SqliteCostsTest, AShardReachesTheDiskTwice) {
  TemporaryFolder folder;
  const CountingDisk disk;
  auto store = OpenSqliteStore(folder / "store.db").value();
  constexpr int64_t kShards = 20;
  ASSERT_TRUE(store->CreateJob(Count("lab", kShards), {}).ok());
  const int64_t before = disk.syncs();
  for (int64_t shard = 0; shard < kShards; ++shard) {
    ASSERT_TRUE(store->ListWork().ok());
    const std::optional<Lease> lease = *store->LeaseWork(kAnyWork);
    ASSERT_TRUE(lease);
    ASSERT_TRUE(store->ReadProgress(*lease, lease->shard).ok());
    ASSERT_TRUE(store->CompleteShard(*lease, {.partial = "p"}).ok());
    ASSERT_TRUE(store->Sweep().ok());
    ASSERT_TRUE(store->TakeOrphanedBlobs(absl::Hours(1)).ok());
  }
  EXPECT_EQ(disk.syncs() - before, 2 * kShards);
}

TEST(SqliteCostsTest, WhoReadsWaitsForNobodyWhoWrites) {
  TemporaryFolder folder;
  auto database = SqliteDatabase::Open(folder / "store.db", &Clock::System()).value();
  const auto names = [&] {
    return *database->Read([](SqlTransaction& transaction) {
      return absl::StatusOr<int64_t>(
          transaction.Integer("SELECT count(*) FROM counters").value_or(-1));
    });
  };
  absl::Notification written, read;
  std::thread writer([&] {
    EXPECT_TRUE(database
                    ->Transact([&](SqlTransaction& transaction) {
                      transaction.Execute("INSERT INTO counters VALUES ('x', 1)");
                      written.Notify();
                      read.WaitForNotification();
                      return absl::OkStatus();
                    })
                    .ok());
  });
  written.WaitForNotification();
  EXPECT_EQ(names(), 1) << "what is not committed is not seen";
  read.Notify();
  writer.join();
  EXPECT_EQ(names(), 2);
  const auto refused = database->Read([](SqlTransaction& transaction) -> absl::StatusOr<int64_t> {
    transaction.Execute("INSERT INTO counters VALUES ('y', 1)");
    return 0;
  });
  EXPECT_FALSE(refused.ok()) << "who reads cannot write";
}

}  // namespace
}  // namespace valuescope::store
