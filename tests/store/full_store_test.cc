// A database that may have no more pages, as on a disk that is full.
#include <SQLiteCpp/SQLiteCpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "store/sqlite_database.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

constexpr int64_t kMore = 16;  // pages, in which no value of the test has room
constexpr int64_t kMany = int64_t{1} << 30;

class FullStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    auto database = SqliteDatabase::Open(folder_ / "store.db", &Clock::System());
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
    ASSERT_TRUE(Write("PRAGMA user_version = 1").ok());
  }

  absl::Status Write(const std::string& sql) {
    return database_->Transact([&](SqlTransaction& transaction) {
      transaction.Execute(sql);
      return absl::OkStatus();
    });
  }

  void Allow(int64_t pages) {
    ASSERT_TRUE(Write("PRAGMA max_page_count = " + std::to_string(pages)).ok());
  }

  int64_t Number(const std::string& sql) {
    return *database_->Transact([&](SqlTransaction& transaction) {
      return absl::StatusOr<int64_t>(transaction.Integer(sql).value());
    });
  }

  static constexpr char kLarge[] =
      "INSERT INTO counters SELECT 'x' || value || hex(zeroblob(50000)), 1"
      " FROM json_each('[1,2,3,4]')";

  TemporaryFolder folder_;
  std::unique_ptr<SqliteDatabase> database_;
};

TEST_F(FullStoreTest, SaysSoChangesNothingStaysSoundAndGoesOnOnceThereIsRoom) {
  const int64_t before = Number("SELECT count(*) FROM counters");
  Allow(Number("PRAGMA page_count") + kMore);
  for (int i = 0; i < 3; ++i) {
    const absl::Status status = Write(kLarge);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(DetailsOf(status).reason, "STORAGE_FULL");
  }
  EXPECT_EQ(Number("SELECT count(*) FROM counters"), before);
  EXPECT_TRUE(Write("INSERT INTO counters VALUES ('small', 1)").ok()) << "what has room is written";
  EXPECT_EQ(SQLite::Database(folder_ / "store.db").execAndGet("PRAGMA integrity_check").getString(),
            "ok");
  Allow(kMany);
  EXPECT_TRUE(Write(kLarge).ok());
  EXPECT_EQ(Number("SELECT count(*) FROM counters"), before + 5);
}

}  // namespace
}  // namespace valuescope::store
