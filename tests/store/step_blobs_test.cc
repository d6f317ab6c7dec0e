// Blobs that partial results name, in every database: they stay as long as the partial does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"
#include "store/store.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;

class StepBlobsTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override {
    auto opened = database_->Open({});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    NewJob job;
    job.tenant = "lab";
    job.kind = "count";
    job.spec = "{}";
    job.num_shards = 1;
    id_ = store_->CreateJob(job, {})->id;
  }

  Lease Take() {
    auto lease = store_->LeaseWork(
        {.can_run = {{.kind = "count", .needs = ""}}, .duration = absl::Seconds(30)});
    EXPECT_TRUE(lease.ok() && lease->has_value()) << lease.status();
    return **std::move(lease);
  }

  static ShardProgress Naming(const std::vector<std::string>& contents) {
    ShardProgress progress = {.partial = "p", .cursor = "1", .work_done = 1};
    for (const std::string& content : contents) progress.blobs.push_back(Sha256Hex(content));
    return progress;
  }

  // Of all blobs there are, those without a name.
  std::vector<std::string> Orphans() {
    const std::vector<std::string> all = {Sha256Hex("a"), Sha256Hex("b"), Sha256Hex("c")};
    EXPECT_TRUE(store_->MarkOrphanedBlobs(all).ok());
    return Taken();
  }

  std::vector<std::string> Taken() {
    const auto taken = store_->TakeOrphanedBlobs(absl::ZeroDuration());
    std::vector<std::string> digests;
    for (const OrphanedBlob& blob : *taken) digests.push_back(blob.digest);
    return digests;
  }

  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
  std::string id_;
};

INSTANTIATE_TEST_SUITE_P(Databases, StepBlobsTest, testing::ValuesIn(kDatabases), NameOfDatabase);

TEST_P(StepBlobsTest, AreThoseOfTheLastCommitAndGoWithTheJob) {
  const Lease lease = Take();
  ASSERT_TRUE(store_->CommitProgress(lease, Naming({"a", "b", "b"})).ok());
  EXPECT_THAT(Orphans(), ElementsAre(Sha256Hex("c")));
  ASSERT_TRUE(store_->CommitProgress(lease, Naming({"b", "c"})).ok());
  EXPECT_THAT(Taken(), ElementsAre(Sha256Hex("a")))
      << "marked by the commit that no longer names it";
  ASSERT_TRUE(store_->RequestCancel("lab", id_).ok());
  ASSERT_TRUE(store_->ReleaseLease(lease).ok());
  EXPECT_THAT(Orphans(), ElementsAre(Sha256Hex("a"))) << "a retry goes on from the others";
  ASSERT_TRUE(store_->DeleteJob("lab", id_).ok());
  EXPECT_EQ(Taken().size(), 2u);
}

TEST_P(StepBlobsTest, GoWithPartialsThatAreKeptNoLonger) {
  const Lease lease = Take();
  ASSERT_TRUE(store_->CommitProgress(lease, Naming({"a"})).ok());
  ASSERT_TRUE(store_->RequestCancel("lab", id_).ok());
  ASSERT_TRUE(store_->ReleaseLease(lease).ok());
  ASSERT_TRUE(store_->Expire({.partials = absl::ZeroDuration()}, /*most_rows=*/100).ok());
  EXPECT_THAT(Taken(), ElementsAre(Sha256Hex("a")));
}

TEST_P(StepBlobsTest, OfAFinishedJobAreItsArtifacts) {
  ASSERT_TRUE(store_->CompleteShard(Take(), Naming({"a"})).ok());
  Resource artifact;
  artifact.kind = ResourceKind::kArtifact;
  artifact.id = "file";
  artifact.digest = artifact.blob_digest = Sha256Hex("a");
  ASSERT_TRUE(store_->CompleteJob(Take(), "{}", {artifact}).ok());
  EXPECT_THAT(Orphans(), testing::UnorderedElementsAre(Sha256Hex("b"), Sha256Hex("c")));
}

TEST_P(StepBlobsTest, WithoutADigestAreRefusedAndNothingIsStored) {
  const Lease lease = Take();
  ShardProgress progress = Naming({"a"});
  progress.blobs.emplace_back("../a");
  EXPECT_EQ(DetailsOf(store_->CommitProgress(lease, progress)).field, "blobs");
  EXPECT_EQ(store_->ReadProgress(lease, 0)->partial, "");
}

}  // namespace
}  // namespace valuescope::store
