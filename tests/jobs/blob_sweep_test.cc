#include "jobs/blob_sweep.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "jobs/worker.h"
#include "store/sqlite_store.h"
#include "tests/jobs/await_job.h"
#include "tests/jobs/letters_kind.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::jobs {
namespace {

// One that is asked to clear what is unfinished and does not answer until it is let.
class SilentBlobStore : public store::BlobStore {
 public:
  absl::Notification asked, answers;

  absl::Status Claim(absl::string_view) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<store::BlobWriter>> NewWriter() override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::unique_ptr<store::ScratchFile>> NewScratchFile() override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<std::string> Read(absl::string_view, int64_t, int64_t) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<int64_t> Size(absl::string_view) override { return absl::UnimplementedError(""); }
  absl::StatusOr<std::vector<std::string>> List(absl::string_view, int64_t,
                                                absl::Duration) override {
    return std::vector<std::string>();
  }
  absl::Status Remove(absl::string_view, absl::Duration) override { return absl::OkStatus(); }
  absl::Status ClearUnfinished() override {
    if (!asked.HasBeenNotified()) asked.Notify();
    answers.WaitForNotification();
    return absl::OkStatus();
  }
};

class BlobSweepTest : public testing::Test {
 protected:
  void SetUp() override {
    auto store = store::OpenSqliteStore(folder_ / "store.db", {.clock = &clock_});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  // When the only lease there is runs out, as another program reads it from the database.
  absl::Time LeaseEnd() {
    SQLite::Database database(folder_ / "store.db", SQLite::OPEN_READONLY);
    return absl::FromUnixMicros(
        database.execAndGet("SELECT expires_at FROM steps WHERE state = 1").getInt64());
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  std::unique_ptr<store::Store> store_;
};

TEST_F(BlobSweepTest, BlobsThatAreSilentCostNoLease) {
  SilentBlobStore blobs;
  JobQueue queue(store_.get(), &clock_);
  LettersKind kind;
  absl::Notification working, go_on;
  kind.before_chunk = [&](ShardContext&, int64_t chunk) {
    if (chunk == 1) {
      working.Notify();
      go_on.WaitForNotification();
    }
    return absl::OkStatus();
  };
  WorkerOptions options;
  options.lease = absl::Seconds(30);
  options.beat = options.sweep = absl::Milliseconds(1);
  options.poll = options.scan = kNever;
  Worker worker(&queue, &blobs, {&kind}, options);
  const auto created = queue.Create(LettersKind::Job("lab", /*shards=*/1), {});
  ASSERT_TRUE(created.ok()) << created.status();
  worker.Start();
  blobs.asked.WaitForNotification();
  working.WaitForNotification();
  // Each time but one beat later the lease would have run out.
  for (int i = 0; i < 4; ++i) {
    const absl::Time before = LeaseEnd();
    clock_.Advance(absl::Seconds(20));
    while (LeaseEnd() == before) std::this_thread::yield();
  }
  EXPECT_EQ(queue.Get("lab", created->job.id)->job.rescues, 0);
  go_on.Notify();
  EXPECT_FALSE(worker.Drain(absl::Now())) << "the blobs are still silent";
  blobs.answers.Notify();
  EXPECT_TRUE(worker.Drain());
}

}  // namespace
}  // namespace valuescope::jobs
