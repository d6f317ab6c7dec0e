// What is SQLite's own: the file, its formats, and that one process holds it.
#include "store/sqlite_store.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <new>
#include <optional>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/sqlite_database.h"
#include "tests/store/earlier_format.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;

class SqliteStoreTest : public testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    store_.reset();
    auto opened = OpenSqliteStore(folder_ / "store.db", {.clock = &clock_});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  absl::Status OpeningAgain() {
    store_.reset();
    return OpenSqliteStore(folder_ / "store.db").status();
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  std::unique_ptr<Store> store_;
};

TEST_F(SqliteStoreTest, LeasesOfADeadProcessAreTakenBackWhenTheStoreIsOpened) {
  NewJob job;
  job.tenant = "lab";
  job.kind = "count";
  const std::string id = store_->CreateJob(job, {})->id;
  const LeaseRequest request{.can_run = {{.kind = "count", .needs = ""}}};
  const std::optional<Lease> orphan = *store_->LeaseWork(request);
  Open();
  EXPECT_EQ(store_->GetJob("lab", id)->rescues, 1);
  EXPECT_EQ(DetailsOf(store_->ExtendLease(*orphan, absl::Seconds(30))).reason, "LEASE_LOST");
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ((*store_->LeaseWork(request))->shard, 0);
}

TEST_F(SqliteStoreTest, ADatabaseOfTheFormatBeforeIsBroughtToThePresentOne) {
  NewJob job;
  job.tenant = "lab";
  job.kind = "attribute_neurons";
  const std::string blob = Sha256Hex("data");
  job.spec = absl::StrCat("{\"model\":\"tiny\",\"data_set_blob\":\"", blob, "\"}");
  const std::string id = store_->CreateJob(job, {})->id;
  job.kind = "other";
  job.spec = "not JSON";
  ASSERT_TRUE(store_->CreateJob(job, {}).ok());
  store_.reset();
  {
    SQLite::Database database(folder_ / "store.db", SQLite::OPEN_READWRITE);
    database.exec(
        absl::StrCat(FromLinesToNone(/*bytes=*/"BLOB"),
                     "DROP INDEX jobs_by_work; DROP TABLE job_blobs;"
                     "ALTER TABLE jobs DROP COLUMN needs; UPDATE store_format SET version = 1"));
  }
  Open();
  EXPECT_EQ(store_->GetJob("lab", id)->needs, "models/tiny");
  EXPECT_EQ(store_->GetJob("lab", id)->revision, 1);
  EXPECT_THAT(store_->GetJob("lab", id)->transitions,
              ElementsAre(JobTransition{.revision = 1, .state = JobState::kQueued}));
  EXPECT_EQ(store_->ListJobs("lab", {.model = "models/tiny"}, {})->jobs.size(), 1u);
  ASSERT_TRUE(store_->MarkOrphanedBlobs({blob, Sha256Hex("nameless")}).ok());
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()),
              ElementsAre(OrphanedBlob{Sha256Hex("nameless")}));
  Open();
}

TEST_F(SqliteStoreTest, WhatATransactionThrowsBecomesAStatusAndNothingOfItHappened) {
  store_.reset();
  auto database = SqliteDatabase::Open(folder_ / "store.db", &clock_);
  ASSERT_TRUE(database.ok()) << database.status();
  const auto throwing = [&](const auto& exception) {
    return (*database)->Transact([&](SqlTransaction& transaction) -> absl::Status {
      transaction.Execute("INSERT INTO counters VALUES ('x', 1)");
      throw exception;
    });
  };
  EXPECT_EQ(DetailsOf(throwing(std::bad_alloc())).reason, "OUT_OF_MEMORY");
  EXPECT_EQ(DetailsOf(throwing(std::length_error("too long"))).reason, "STORE_FAILED");
  EXPECT_EQ(DetailsOf(throwing(SQLite::Exception("full", SQLITE_FULL))).reason, "STORAGE_FULL");
  const auto rows = (*database)->Transact([](SqlTransaction& transaction) {
    return absl::StatusOr<int64_t>(
        transaction.Integer("SELECT count(*) FROM counters WHERE name = 'x'").value_or(-1));
  });
  EXPECT_EQ(*rows, 0);
}

TEST_F(SqliteStoreTest, ADatabaseOfANewerVersionIsRefusedAndLeftAlone) {
  store_.reset();
  {
    SQLite::Database database(folder_ / "store.db", SQLite::OPEN_READWRITE);
    database.exec("UPDATE store_format SET version = 99");
  }
  const absl::Status status = OpeningAgain();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(status).reason, "STORE_TOO_NEW");
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("format 99"));
}

TEST_F(SqliteStoreTest, AnotherApplicationsDatabaseIsRefused) {
  const std::string path = folder_ / "foreign.db";
  SQLite::Database(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE).exec("CREATE TABLE t (x)");
  EXPECT_EQ(DetailsOf(OpenSqliteStore(path).status()).reason, "NOT_A_STORE");
}

TEST_F(SqliteStoreTest, ADamagedFileIsDataLossAndAMissingFolderUnavailable) {
  store_.reset();
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(folder_ / "x").parent_path())) {
    std::filesystem::remove(entry.path());
  }
  std::ofstream(folder_ / "store.db") << std::string(8192, 'x');
  EXPECT_EQ(OpeningAgain().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(OpenSqliteStore(folder_ / "missing/store.db").status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(SqliteStoreTest, ASecondServerOnTheSameFileIsRefused) {
  const absl::Status status = OpenSqliteStore(folder_ / "store.db").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(status).reason, "STORE_IN_USE");
}

TEST_F(SqliteStoreTest, ADatabaseLockedByAnotherProgramIsUnavailableAndThenWorksAgain) {
  SQLite::Database intruder(folder_ / "store.db", SQLite::OPEN_READWRITE);
  intruder.exec("BEGIN IMMEDIATE");
  const absl::Status status = store_->DeleteResource("lab", ResourceKind::kVector, "v");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(DetailsOf(status).reason, "STORE_BUSY");
  intruder.exec("ROLLBACK");
  EXPECT_EQ(store_->DeleteResource("lab", ResourceKind::kVector, "v").code(),
            absl::StatusCode::kNotFound);
}

TEST(SqliteDatabaseTest, NetworkFileSystemsAreKnownAlsoWhereTheirMagicIsSignExtended) {
  EXPECT_TRUE(IsNetworkFileSystem(0x6969));
  EXPECT_TRUE(IsNetworkFileSystem(0xFF534D42));
  EXPECT_TRUE(IsNetworkFileSystem(0xFFFFFFFFFF534D42));
  EXPECT_FALSE(IsNetworkFileSystem(0xEF53));
  EXPECT_FALSE(IsNetworkFileSystem(0x01021994));
}

}  // namespace
}  // namespace valuescope::store
