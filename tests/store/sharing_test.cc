// What tenants publish for all, in every database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/shared_tenant.h"
#include "store/store.h"
#include "tests/store/any_work.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr ResourceKind kVector = ResourceKind::kVector;

class SharingTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override { Open({}); }

  void Open(const TenantPolicies& tenants) {
    store_.reset();
    auto opened = database_->Open(tenants);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  // "v" of `tenant`, of eight bytes with its metadata.
  void Put(const std::string& tenant, const std::string& content = "content") {
    Resource resource;
    resource.kind = kVector;
    resource.id = "v";
    resource.digest = resource.blob_digest = Sha256Hex(content);
    resource.blob_size = static_cast<int64_t>(content.size());
    resource.metadata = "m";
    resource.display_name = "of " + tenant;
    const auto put = store_->PutResources(tenant, {resource}, {});
    ASSERT_TRUE(put.ok()) << put.status();
  }

  absl::StatusOr<Resource> Publish(const std::string& tenant) {
    return store_->PublishResource(tenant, kVector, "v");
  }
  absl::Status Withdraw(const std::string& tenant, bool of_anybody = false) {
    return store_->WithdrawResource(tenant, kVector, "v", {.of_anybody = of_anybody});
  }
  absl::Status Delete(const std::string& tenant) {
    return store_->DeleteResource(tenant, kVector, "v");
  }
  absl::StatusOr<Resource> Get(const std::string& tenant) {
    return store_->GetResource(tenant, kVector, "v");
  }

  std::vector<std::string> Listed(absl::string_view tenant) {
    const auto page = store_->ListResources(tenant, kVector, {}, {});
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> owners;
    if (page.ok()) {
      for (const Resource& resource : page->resources) owners.push_back(resource.owner());
    }
    return owners;
  }

  // A job of `tenant` that reads "v".
  absl::StatusOr<Job> CreateReader(const std::string& tenant) {
    NewJob job;
    job.tenant = tenant;
    job.kind = "count";
    job.spec = "{}";
    job.inputs = {{.kind = kVector, .id = "v"}};
    return store_->CreateJob(job, {});
  }

  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, SharingTest, testing::ValuesIn(kDatabases), NameOfDatabase);

TEST_P(SharingTest, WhatIsPublishedEveryTenantReads) {
  Put("lab");
  const absl::Time made = database_->Now();
  EXPECT_EQ(Get("other").status().code(), absl::StatusCode::kNotFound);
  database_->Advance(absl::Hours(1));
  const auto published = Publish("lab");
  ASSERT_TRUE(published.ok()) << published.status();
  EXPECT_EQ(published->publisher, "lab");
  EXPECT_EQ(published->published_at, database_->Now());
  const auto read = Get("other");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->owner(), "lab");
  EXPECT_EQ(read->created_at, made);
  EXPECT_EQ(read->digest, Sha256Hex("content"));
  EXPECT_EQ(read->blob_digest, Sha256Hex("content"));
  EXPECT_EQ(read->metadata, "m");
  EXPECT_EQ(read->display_name, "of lab");
  EXPECT_EQ(Get("lab")->tenant, "lab") << "who has one of its own reads that";
}

TEST_P(SharingTest, ListsHaveEitherOnesOwnOrWhatIsPublished) {
  Put("lab");
  Put("other");
  ASSERT_TRUE(Publish("lab").ok());
  EXPECT_THAT(Listed("other"), ElementsAre("other"));
  EXPECT_THAT(Listed("third"), IsEmpty());
  EXPECT_THAT(Listed(kSharedTenant), ElementsAre("lab"));
  ASSERT_TRUE(Withdraw("lab").ok());
  EXPECT_THAT(Listed(kSharedTenant), IsEmpty());
  EXPECT_THAT(Listed("lab"), ElementsAre("lab"));
}

TEST_P(SharingTest, PublishingAgainChangesNothing) {
  Put("lab");
  const absl::Time first = database_->Now();
  ASSERT_TRUE(Publish("lab").ok());
  database_->Advance(absl::Hours(1));
  Put("other");
  for (const std::string tenant : {"lab", "other", "third"}) {
    const auto again = Publish(tenant);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->publisher, "lab") << tenant;
    EXPECT_EQ(again->published_at, first);
  }
  EXPECT_THAT(Listed(kSharedTenant), ElementsAre("lab"));
}

TEST_P(SharingTest, WhatIsNotOnesOwnCannotBePublished) {
  Put("lab");
  EXPECT_EQ(Publish("other").status(), Get("other").status()) << "as of an unknown name";
  EXPECT_EQ(Publish("other").status().code(), absl::StatusCode::kNotFound);
}

TEST_P(SharingTest, OtherContentUnderAPublishedNameIsRefusedAndStillOnesOwn) {
  Put("lab");
  ASSERT_TRUE(Publish("lab").ok());
  Put("other", "their own");
  const auto refused = Publish("other");
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(DetailsOf(refused.status()).reason, "RESOURCE_EXISTS");
  EXPECT_EQ(Get("other")->digest, Sha256Hex("their own"));
  EXPECT_EQ(Get("third")->digest, Sha256Hex("content"));
}

TEST_P(SharingTest, DeletingTouchesOnesOwnAlone) {
  Put("lab");
  ASSERT_TRUE(Publish("lab").ok());
  EXPECT_EQ(Delete("other").code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Delete("lab").ok());
  EXPECT_EQ(Delete("lab").code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(Get("other").ok());
  EXPECT_EQ(Get("lab")->tenant, kSharedTenant) << "the owner is one of the others now";
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()), IsEmpty());
  ASSERT_TRUE(Withdraw("lab").ok());
  EXPECT_EQ(Get("lab").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()),
              ElementsAre(OrphanedBlob{Sha256Hex("content")}));
}

TEST_P(SharingTest, WhatIsWithdrawnIsUnknownToOthersAndStaysWithItsOwner) {
  Put("lab");
  const absl::Status unknown = Get("other").status();
  ASSERT_TRUE(Publish("lab").ok());
  ASSERT_TRUE(Withdraw("lab").ok());
  EXPECT_EQ(Get("other").status(), unknown);
  EXPECT_EQ(Withdraw("lab"), unknown) << "it is not published any more";
  EXPECT_TRUE(Get("lab").ok());
  EXPECT_TRUE(Publish("lab").ok());
}

TEST_P(SharingTest, WhoDidNotPublishItMayWithdrawItOnlyForAnybody) {
  Put("lab");
  ASSERT_TRUE(Publish("lab").ok());
  const absl::Status refused = Withdraw("other");
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(DetailsOf(refused).reason, "ANOTHER_PUBLISHER");
  EXPECT_TRUE(Get("other").ok());
  EXPECT_TRUE(Withdraw("other", /*of_anybody=*/true).ok());
  EXPECT_FALSE(Get("other").ok());
}

TEST_P(SharingTest, WhatAJobOfAnyTenantReadsStaysPublishedUntilItIsFinished) {
  Put("lab");
  ASSERT_TRUE(Publish("lab").ok());
  const auto reader = CreateReader("other");
  ASSERT_TRUE(reader.ok()) << reader.status();
  const absl::Status refused = Withdraw("lab");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(refused).reason, "RESOURCE_IN_USE");
  EXPECT_THAT(std::string(refused.message()), Not(HasSubstr(reader->id)))
      << "jobs are their tenant's business";
  EXPECT_TRUE(Delete("lab").ok()) << "nobody reads the owner's";
  ASSERT_TRUE(store_->RequestCancel("other", reader->id).ok());
  EXPECT_TRUE(Withdraw("lab").ok());
  EXPECT_EQ(CreateReader("other").status().code(), absl::StatusCode::kNotFound);
}

TEST_P(SharingTest, WhatAJobReadsCanBeWithdrawnFromUnderItAndTheJobHearsOfIt) {
  Put("lab");
  ASSERT_TRUE(Publish("lab").ok());
  const std::string reader = CreateReader("other")->id;
  const absl::Status withdrawn = store_->WithdrawResource(
      "operator", kVector, "v", {.of_anybody = true, .although_read = true});
  EXPECT_TRUE(withdrawn.ok()) << withdrawn;
  EXPECT_EQ(store_->GetResource("other", kVector, "v").status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->GetJob("other", reader)->state, JobState::kQueued);
  EXPECT_TRUE(store_->RequestCancel("other", reader).ok());
}

TEST_P(SharingTest, AJobReadsItsTenantsOwnWhereThereIsOne) {
  Put("lab");
  Put("other");
  ASSERT_TRUE(Publish("lab").ok());
  ASSERT_TRUE(CreateReader("other").ok());
  EXPECT_EQ(DetailsOf(Delete("other")).reason, "RESOURCE_IN_USE");
  EXPECT_TRUE(Withdraw("lab").ok());
}

TEST_P(SharingTest, AJobThatIsRetriedHoldsWhatItWillRead) {
  Put("lab");
  Put("other");
  ASSERT_TRUE(Publish("lab").ok());
  const std::string own = CreateReader("other")->id;
  ASSERT_TRUE(store_->RequestCancel("other", own).ok());
  ASSERT_TRUE(Delete("other").ok());
  ASSERT_TRUE(store_->RetryJob("other", own, {}).ok()) << "the published one is left";
  EXPECT_EQ(DetailsOf(Withdraw("lab")).reason, "RESOURCE_IN_USE");
  ASSERT_TRUE(store_->RequestCancel("other", own).ok());
  ASSERT_TRUE(Withdraw("lab").ok());
  const auto refused = store_->RetryJob("other", own, {});
  EXPECT_EQ(DetailsOf(refused.status()).reason, "INPUT_DELETED");
  Put("other");
  ASSERT_TRUE(store_->RetryJob("other", own, {}).ok());
  EXPECT_EQ(DetailsOf(Delete("other")).reason, "RESOURCE_IN_USE");
}

TEST_P(SharingTest, AJobThatMadeWhatIsPublishedCanGo) {
  NewJob job;
  job.tenant = "lab";
  job.kind = "count";
  job.spec = "{}";
  const std::string maker = store_->CreateJob(job, {})->id;
  ASSERT_TRUE(
      store_->CompleteShard(**store_->LeaseWork(kAnyWork), {.partial = "p", .cursor = ""}).ok());
  Resource artifact;
  artifact.kind = ResourceKind::kArtifact;
  artifact.id = "a";
  artifact.digest = artifact.blob_digest = Sha256Hex("artifact");
  ASSERT_TRUE(store_->CompleteJob(**store_->LeaseWork(kAnyWork), "{}", {artifact}).ok());
  ASSERT_TRUE(store_->PublishResource("lab", ResourceKind::kArtifact, "a").ok());
  NewJob reading = job;
  reading.tenant = "other";
  reading.inputs = {{.kind = ResourceKind::kArtifact, .id = "a"}};
  ASSERT_TRUE(store_->CreateJob(reading, {}).ok());
  database_->Advance(absl::Hours(25));
  const auto expired = store_->Expire({.jobs = absl::Hours(24)}, 100);
  ASSERT_TRUE(expired.ok()) << expired.status();
  EXPECT_THAT(expired->jobs, ElementsAre(maker)) << "its own artifact is read by nobody";
  EXPECT_EQ(store_->GetResource("other", ResourceKind::kArtifact, "a")->owner(), "lab");
}

TEST_P(SharingTest, WhatIsPublishedCountsForTheTenantOfAllThatIs) {
  Open({.others = {.max_stored_bytes = 20},
        .named = {{std::string(kSharedTenant), {.max_stored_bytes = 7}}}});
  Put("lab");  // eight bytes
  const auto refused = Publish("lab");
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(refused.status()).reason, kStorageQuota);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("withdraw"));
  EXPECT_FALSE(Get("other").ok());
  Open({.others = {.max_stored_bytes = 8}});
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(Publish("lab").ok()) << "what was withdrawn counts no more";
    ASSERT_TRUE(Withdraw("lab").ok());
  }
  ASSERT_TRUE(Publish("lab").ok());
  EXPECT_TRUE(Delete("lab").ok());
  Put("lab");
}

TEST_P(SharingTest, WhatATenantOfThatNameHadBeforeIsNotPublished) {
  Put(std::string(kSharedTenant));
  EXPECT_FALSE(Get("other").ok());
  EXPECT_THAT(Listed(kSharedTenant), IsEmpty());
  EXPECT_EQ(Withdraw("other", /*of_anybody=*/true).code(), absl::StatusCode::kNotFound);
  Put("lab");
  EXPECT_EQ(Publish("lab").status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_P(SharingTest, ARequestThatIsSentAgainIsAnsweredWithOnesOwnAlone) {
  Put("lab");
  ASSERT_TRUE(Publish("lab").ok());
  Resource resource = *Get("lab");
  const IdempotencyKey key{.request_id = "once", .request_digest = "d"};
  ASSERT_TRUE(store_->PutResources("other", {resource}, key).ok());
  ASSERT_TRUE(Delete("other").ok());
  EXPECT_EQ(store_->PutResources("other", {resource}, key).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace valuescope::store
