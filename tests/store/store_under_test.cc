#include "tests/store/store_under_test.h"

#include "base/clock.h"
#include "store/sqlite_store.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

constexpr RetryPolicy kRetry = {.max_shard_failures = 3, .failure_backoff = absl::Seconds(1)};

class SqliteUnderTest : public DatabaseUnderTest {
 public:
  absl::StatusOr<std::unique_ptr<Store>> Open() override {
    return OpenSqliteStore(folder_ / "store.db", {.retry = kRetry, .clock = &clock_});
  }
  absl::Time Now() override { return clock_.Now(); }
  void Advance(absl::Duration duration) override { clock_.Advance(duration); }

 private:
  TemporaryFolder folder_;
  FakeClock clock_;
};

}  // namespace

std::unique_ptr<DatabaseUnderTest> MakeDatabase(Database database) {
  return std::make_unique<SqliteUnderTest>();
}

}  // namespace valuescope::store
