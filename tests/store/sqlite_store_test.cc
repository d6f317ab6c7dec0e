// Resources, idempotency, paging and the opening of the database.
#include "store/sqlite_store.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <new>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/sqlite_database.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

Resource MakeVector(const std::string& id, const std::string& content) {
  Resource resource;
  resource.kind = ResourceKind::kVector;
  resource.id = id;
  resource.digest = Sha256Hex(content);
  resource.metadata = std::string("{\"bytes\":\"\0\"}", 13);
  resource.blob_digest = Sha256Hex(content);
  resource.blob_size = static_cast<int64_t>(content.size());
  return resource;
}

class SqliteStoreTest : public testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    store_.reset();
    auto opened = OpenSqliteStore(folder_ / "store.db", {.clock = &clock_});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  void Put(const std::string& tenant, const Resource& resource) {
    const auto put = store_->PutResources(tenant, {resource}, {});
    ASSERT_TRUE(put.ok()) << put.status();
  }

  absl::Status OpeningAgain() {
    store_.reset();
    return OpenSqliteStore(folder_ / "store.db").status();
  }

  TemporaryFolder folder_;
  FakeClock clock_;
  std::unique_ptr<Store> store_;
};

TEST_F(SqliteStoreTest, ATimeIsTheSameAtOnceAndLater) {
  clock_.Advance(absl::Nanoseconds(123456789));
  const auto put = store_->PutResources("default", {MakeVector("v", "content")}, {});
  ASSERT_TRUE(put.ok()) << put.status();
  const auto read = store_->GetResource("default", ResourceKind::kVector, "v");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(put->front().created_at, read->created_at);
}

TEST_F(SqliteStoreTest, KeepsEveryFieldOfAResourceAcrossReopening) {
  Resource resource = MakeVector("v", "content");
  resource.format_version = 3;
  resource.display_name = "Stimulation";
  resource.media_type = "application/vnd.safetensors";
  Put("lab", resource);
  Open();
  const auto read = store_->GetResource("lab", ResourceKind::kVector, "v");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->tenant, "lab");
  EXPECT_EQ(read->created_at, clock_.Now());
  EXPECT_EQ(read->format_version, 3);
  EXPECT_EQ(read->digest, resource.digest);
  EXPECT_EQ(read->display_name, "Stimulation");
  EXPECT_EQ(read->media_type, "application/vnd.safetensors");
  EXPECT_EQ(read->metadata, resource.metadata) << "opaque bytes, zero bytes too";
  EXPECT_EQ(read->blob_digest, resource.blob_digest);
  EXPECT_EQ(read->blob_size, 7);
}

TEST_F(SqliteStoreTest, AnotherTenantsResourceDoesNotExist) {
  Put("lab", MakeVector("v", "content"));
  for (const absl::Status& status :
       {store_->GetResource("other", ResourceKind::kVector, "v").status(),
        store_->DeleteResource("other", ResourceKind::kVector, "v"),
        store_->GetResource("lab", ResourceKind::kNeuronSet, "v").status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(DetailsOf(status).reason, "RESOURCE_NOT_FOUND");
  }
  EXPECT_THAT(store_->ListResources("other", ResourceKind::kVector, {}, {})->resources, IsEmpty());
  Put("other", MakeVector("v", "their own content under the same id"));
  EXPECT_EQ(store_->GetResource("lab", ResourceKind::kVector, "v")->digest, Sha256Hex("content"));
}

TEST_F(SqliteStoreTest, EqualContentUnderAnIdIsTheSameResourceAndOtherContentIsRefused) {
  Put("lab", MakeVector("v", "content"));
  const absl::Time first = clock_.Now();
  clock_.Advance(absl::Hours(1));
  const auto again = store_->PutResources("lab", {MakeVector("v", "content")}, {});
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->front().created_at, first);
  const absl::Status other =
      store_->PutResources("lab", {MakeVector("w", "new"), MakeVector("v", "other")}, {}).status();
  EXPECT_EQ(other.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store_->GetResource("lab", ResourceKind::kVector, "w").status().code(),
            absl::StatusCode::kNotFound)
      << "all or none";
}

TEST_F(SqliteStoreTest, ARepeatedRequestGivesTheFirstResult) {
  const IdempotencyKey key{.request_id = "r1", .request_digest = "d1"};
  EXPECT_FALSE(store_->FindRequest("lab", key)->has_value());
  ASSERT_TRUE(store_->PutResources("lab", {MakeVector("b", "1"), MakeVector("a", "2")}, key).ok());
  Open();
  const auto found = store_->FindRequest("lab", key);
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_THAT((*found)->references, ElementsAre(ResourceReference{ResourceKind::kVector, "b"},
                                                ResourceReference{ResourceKind::kVector, "a"}));
  const auto again = store_->PutResources("lab", {MakeVector("c", "3")}, key);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->at(0).id, "b");
  EXPECT_EQ(again->at(1).id, "a");
  EXPECT_FALSE(store_->GetResource("lab", ResourceKind::kVector, "c").ok());

  const absl::Status reused =
      store_->FindRequest("lab", {.request_id = "r1", .request_digest = "d2"}).status();
  EXPECT_EQ(reused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(DetailsOf(reused).reason, "REQUEST_ID_REUSED");
  EXPECT_FALSE(
      store_->FindRequest("other", {.request_id = "r1", .request_digest = "d2"})->has_value())
      << "request ids are per tenant";
}

TEST_F(SqliteStoreTest, HostileIdsAndDigestsAreRefusedAndHostileLookupsFindNothing) {
  const std::string hostile[] = {"",
                                 "../v",
                                 "a/b",
                                 "v'; DROP TABLE resources; --",
                                 ".hidden",
                                 "x..y",
                                 std::string("nul\0byte", 8),
                                 std::string(129, 'a')};
  Put("lab", MakeVector("v", "content"));
  for (const std::string& id : hostile) {
    EXPECT_EQ(store_->PutResources("lab", {MakeVector(id, "x")}, {}).status().code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(store_->GetResource("lab", ResourceKind::kVector, id).status().code(),
              absl::StatusCode::kNotFound);
  }
  Resource no_digest = MakeVector("w", "x");
  no_digest.blob_digest = "../../etc/passwd";
  EXPECT_EQ(store_->PutResources("lab", {no_digest}, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(store_->GetResource("lab", ResourceKind::kVector, "v").ok());
}

TEST_F(SqliteStoreTest, PagesAreStableWhileResourcesAreAddedAndRemoved) {
  for (int i = 0; i < 5; ++i) Put("lab", MakeVector(absl::StrCat("v", i), absl::StrCat(i)));
  Page page{.page_size = 2, .page_token = ""};
  std::vector<std::string> seen;
  do {
    const auto result = store_->ListResources("lab", ResourceKind::kVector, {}, page);
    ASSERT_TRUE(result.ok()) << result.status();
    for (const Resource& resource : result->resources) seen.push_back(resource.id);
    page.page_token = result->next_page_token;
    Put("lab", MakeVector(absl::StrCat("new", seen.size()), "new"));
    if (seen.size() == 2) {
      ASSERT_TRUE(store_->DeleteResource("lab", ResourceKind::kVector, "v3").ok());
    }
  } while (!page.page_token.empty());
  EXPECT_THAT(seen, ElementsAre("v4", "v3", "v2", "v1", "v0"));
}

TEST_F(SqliteStoreTest, APageOfLargeRecordsEndsBeforeItIsTooMuchForAMessage) {
  for (int i = 0; i < 9; ++i) {
    Resource large = MakeVector(absl::StrCat("v", i), absl::StrCat(i));
    large.metadata = std::string(size_t{900} << 10, 'm');
    Put("lab", large);
  }
  Page page{.page_size = 1000, .page_token = ""};
  std::vector<size_t> sizes;
  do {
    const auto result = store_->ListResources("lab", ResourceKind::kVector, {}, page);
    ASSERT_TRUE(result.ok()) << result.status();
    sizes.push_back(result->resources.size());
    page.page_token = result->next_page_token;
  } while (!page.page_token.empty());
  EXPECT_THAT(sizes, ElementsAre(3, 3, 3));
}

TEST_F(SqliteStoreTest, APageTokenOfAnotherListIsRefused) {
  for (int i = 0; i < 3; ++i) Put("lab", MakeVector(absl::StrCat("v", i), absl::StrCat(i)));
  const Page first{.page_size = 1, .page_token = ""};
  const std::string token =
      store_->ListResources("lab", ResourceKind::kVector, {}, first)->next_page_token;
  const Page next{.page_size = 1, .page_token = token};
  EXPECT_TRUE(store_->ListResources("lab", ResourceKind::kVector, {}, next).ok());
  const Page garbage{.page_size = 1, .page_token = "!garbage"};
  const Page huge{.page_size = 1, .page_token = std::string(100'000, 'A')};
  const Page negative{.page_size = -1, .page_token = ""};
  for (const absl::Status& status :
       {store_->ListResources("other", ResourceKind::kVector, {}, next).status(),
        store_->ListResources("lab", ResourceKind::kNeuronSet, {}, next).status(),
        store_->ListResources("lab", ResourceKind::kVector, {.job_id = "j"}, next).status(),
        store_->ListJobs("lab", {}, next).status(),
        store_->ListResources("lab", ResourceKind::kVector, {}, garbage).status(),
        store_->ListResources("lab", ResourceKind::kVector, {}, huge).status(),
        store_->ListResources("lab", ResourceKind::kVector, {}, negative).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
}

TEST_F(SqliteStoreTest, ABlobIsOrphanedByItsLastResourceAndOnlyAfterTheGrace) {
  Put("lab", MakeVector("v", "content"));
  Put("other", MakeVector("v", "content"));
  ASSERT_TRUE(store_->DeleteResource("lab", ResourceKind::kVector, "v").ok());
  clock_.Advance(absl::Hours(2));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty()) << "the other still has it";
  ASSERT_TRUE(store_->DeleteResource("other", ResourceKind::kVector, "v").ok());
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty()) << "too young";
  clock_.Advance(absl::Hours(2));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), ElementsAre(Sha256Hex("content")));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty()) << "returned once";
}

TEST_F(SqliteStoreTest, ABlobThatIsNamedAgainIsNoOrphan) {
  Put("lab", MakeVector("v", "content"));
  ASSERT_TRUE(store_->DeleteResource("lab", ResourceKind::kVector, "v").ok());
  Put("lab", MakeVector("v", "content"));
  clock_.Advance(absl::Hours(2));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty());
}

TEST_F(SqliteStoreTest, ABlobThatNeverHadANameIsAnOrphanOnceItWasMarkedForLongEnough) {
  Put("lab", MakeVector("v", "named"));
  const std::vector<std::string> met = {Sha256Hex("named"), Sha256Hex("nameless")};
  ASSERT_TRUE(store_->MarkOrphanedBlobs(met).ok());
  clock_.Advance(absl::Minutes(59));
  ASSERT_TRUE(store_->MarkOrphanedBlobs(met).ok()) << "the first mark counts";
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty());
  clock_.Advance(absl::Minutes(1));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), ElementsAre(Sha256Hex("nameless")));
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
        "DROP INDEX jobs_by_work; DROP TABLE job_blobs; ALTER TABLE jobs DROP COLUMN needs;"
        "UPDATE store_format SET version = 1");
  }
  Open();
  EXPECT_EQ(store_->GetJob("lab", id)->needs, "models/tiny");
  ASSERT_TRUE(store_->MarkOrphanedBlobs({blob, Sha256Hex("nameless")}).ok());
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()), ElementsAre(Sha256Hex("nameless")));
  Open();
}

TEST_F(SqliteStoreTest, WhatATransactionThrowsBecomesAStatusAndNothingOfItHappened) {
  store_.reset();
  auto database = SqliteDatabase::Open(folder_ / "store.db", &clock_);
  ASSERT_TRUE(database.ok()) << database.status();
  const auto throwing = [&](const auto& exception) {
    return (*database)->Transact([&](SqliteTransaction& transaction) -> absl::Status {
      transaction.Execute("INSERT INTO counters VALUES ('x', 1)");
      throw exception;
    });
  };
  EXPECT_EQ(DetailsOf(throwing(std::bad_alloc())).reason, "OUT_OF_MEMORY");
  EXPECT_EQ(DetailsOf(throwing(std::length_error("too long"))).reason, "STORE_FAILED");
  EXPECT_EQ(DetailsOf(throwing(SQLite::Exception("full", SQLITE_FULL))).reason, "STORAGE_FULL");
  const auto rows = (*database)->Transact([](SqliteTransaction& transaction) {
    return absl::StatusOr<int64_t>(
        *transaction.Integer("SELECT count(*) FROM counters WHERE name = 'x'"));
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
  const absl::Status status = store_->GetResource("lab", ResourceKind::kVector, "v").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(DetailsOf(status).reason, "STORE_BUSY");
  intruder.exec("ROLLBACK");
  EXPECT_EQ(store_->GetResource("lab", ResourceKind::kVector, "v").status().code(),
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
