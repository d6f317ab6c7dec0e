// Resources, idempotency and paging, in every database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/store.h"
#include "tests/store/store_under_test.h"

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

class ResourceTableTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    store_.reset();
    auto opened = database_->Open({});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  void Put(const std::string& tenant, const Resource& resource) {
    const auto put = store_->PutResources(tenant, {resource}, {});
    ASSERT_TRUE(put.ok()) << put.status();
  }

  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, ResourceTableTest, testing::ValuesIn(kDatabases),
                         NameOfDatabase);

TEST_P(ResourceTableTest, ATimeIsTheSameAtOnceAndLater) {
  database_->Advance(absl::Nanoseconds(123456789));
  const auto put = store_->PutResources("default", {MakeVector("v", "content")}, {});
  ASSERT_TRUE(put.ok()) << put.status();
  const auto read = store_->GetResource("default", ResourceKind::kVector, "v");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(put->front().created_at, read->created_at);
}

TEST_P(ResourceTableTest, KeepsEveryFieldOfAResourceAcrossReopening) {
  Resource resource = MakeVector("v", "content");
  resource.format_version = 3;
  resource.display_name = "Stimulation";
  resource.media_type = "application/vnd.safetensors";
  Put("lab", resource);
  Open();
  const auto read = store_->GetResource("lab", ResourceKind::kVector, "v");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->tenant, "lab");
  EXPECT_EQ(read->created_at, database_->Now());
  EXPECT_EQ(read->format_version, 3);
  EXPECT_EQ(read->digest, resource.digest);
  EXPECT_EQ(read->display_name, "Stimulation");
  EXPECT_EQ(read->media_type, "application/vnd.safetensors");
  EXPECT_EQ(read->metadata, resource.metadata) << "opaque bytes, zero bytes too";
  EXPECT_EQ(read->blob_digest, resource.blob_digest);
  EXPECT_EQ(read->blob_size, 7);
}

TEST_P(ResourceTableTest, AnotherTenantsResourceDoesNotExist) {
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

TEST_P(ResourceTableTest, EqualContentUnderAnIdIsTheSameResourceAndOtherContentIsRefused) {
  Put("lab", MakeVector("v", "content"));
  const absl::Time first = database_->Now();
  database_->Advance(absl::Hours(1));
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

TEST_P(ResourceTableTest, ARepeatedRequestGivesTheFirstResult) {
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

TEST_P(ResourceTableTest, HostileIdsAndDigestsAreRefusedAndHostileLookupsFindNothing) {
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

TEST_P(ResourceTableTest, PagesAreStableWhileResourcesAreAddedAndRemoved) {
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

TEST_P(ResourceTableTest, APageOfLargeRecordsEndsBeforeItIsTooMuchForAMessage) {
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

TEST_P(ResourceTableTest, APageTokenOfAnotherListIsRefused) {
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

TEST_P(ResourceTableTest, ABlobIsOrphanedByItsLastResourceAndOnlyAfterTheGrace) {
  Put("lab", MakeVector("v", "content"));
  Put("other", MakeVector("v", "content"));
  ASSERT_TRUE(store_->DeleteResource("lab", ResourceKind::kVector, "v").ok());
  database_->Advance(absl::Hours(2));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty()) << "the other still has it";
  ASSERT_TRUE(store_->DeleteResource("other", ResourceKind::kVector, "v").ok());
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty()) << "too young";
  database_->Advance(absl::Hours(2));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)),
              ElementsAre(OrphanedBlob{Sha256Hex("content")}));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty()) << "returned once";
}

TEST_P(ResourceTableTest, ABlobThatIsNamedAgainIsNoOrphan) {
  Put("lab", MakeVector("v", "content"));
  ASSERT_TRUE(store_->DeleteResource("lab", ResourceKind::kVector, "v").ok());
  Put("lab", MakeVector("v", "content"));
  database_->Advance(absl::Hours(2));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty());
}

TEST_P(ResourceTableTest, ABlobThatNeverHadANameIsAnOrphanOnceItWasMarkedForLongEnough) {
  Put("lab", MakeVector("v", "named"));
  const std::vector<std::string> met = {Sha256Hex("named"), Sha256Hex("nameless")};
  ASSERT_TRUE(store_->MarkOrphanedBlobs(met).ok());
  database_->Advance(absl::Minutes(59));
  ASSERT_TRUE(store_->MarkOrphanedBlobs(met).ok()) << "the first mark counts";
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)), IsEmpty());
  database_->Advance(absl::Minutes(1));
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::Hours(1)),
              ElementsAre(OrphanedBlob{Sha256Hex("nameless")}));
}

TEST_P(ResourceTableTest, ListsOfAModelPageThroughAllOfItsAndNoOthers) {
  std::vector<std::string> wanted;  // newest first
  for (int i = 0; i < 90; ++i) {
    Resource resource = MakeVector(absl::StrCat("v", i), absl::StrCat(i));
    // Far apart, and some behind more than one answer looks at.
    resource.metadata = i == 0 || i == 3 || i > 86 ? "models/b" : "models/a";
    Put("lab", resource);
    if (resource.metadata == "models/b") wanted.insert(wanted.begin(), resource.id);
  }
  const ResourceFilter filter{.model = "models/b", .is_of_model = [](const Resource& resource) {
                                return resource.metadata == "models/b";
                              }};
  for (const int size : {1, 2, 50}) {
    std::vector<std::string> found;
    Page page{.page_size = size};
    int pages = 0;
    do {
      const auto listed = store_->ListResources("lab", ResourceKind::kVector, filter, page);
      ASSERT_TRUE(listed.ok()) << listed.status();
      EXPECT_LE(listed->resources.size(), static_cast<size_t>(size));
      for (const Resource& resource : listed->resources) found.push_back(resource.id);
      page.page_token = listed->next_page_token;
      ASSERT_LT(++pages, 100);
    } while (!page.page_token.empty());
    EXPECT_EQ(found, wanted) << size;
  }
  const auto first = store_->ListResources("lab", ResourceKind::kVector, filter, {.page_size = 1});
  const auto other = store_->ListResources("lab", ResourceKind::kVector, {},
                                           {.page_token = first->next_page_token});
  EXPECT_EQ(DetailsOf(other.status()).field, "page_token");
}

}  // namespace
}  // namespace valuescope::store
