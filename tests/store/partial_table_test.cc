// Partials of shards that are blobs: who names them, when they go, and what becomes of a shard
// whose partial is lost, in every database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/sha256.h"
#include "store/store.h"
#include "tests/store/any_work.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr int64_t kUnits = 10;  // of a shard

NewJob Counting(int64_t shards) {
  NewJob job;
  job.tenant = "lab";
  job.kind = "count";
  job.num_shards = shards;
  job.total_work = kUnits * shards;
  return job;
}

StoredBlob Blob(const std::string& content) { return {.digest = Sha256Hex(content), .size = 1000}; }

OrphanedBlob Dropped(const std::string& content) {
  return {.digest = Sha256Hex(content), .was_partial = true};
}

class PartialTableTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override {
    auto opened = database_->Open({});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  std::string Create(int64_t shards) { return store_->CreateJob(Counting(shards), {})->id; }

  std::optional<Lease> Take() {
    auto lease = store_->LeaseWork(kAnyWork);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *lease : std::nullopt;
  }

  absl::Status Commit(const Lease& lease, const std::string& content) {
    return store_->CommitProgress(lease,
                                  {.cursor = "5", .work_done = 5, .partial_blob = Blob(content)});
  }

  absl::Status Complete(const Lease& lease, const std::string& content) {
    return store_->CompleteShard(
        lease,
        {.work_done = kUnits, .observed = {{"seen", kUnits}}, .partial_blob = Blob(content)});
  }

  // Both shards are done, of contents "a" and "b".
  std::optional<Lease> TakeMergeOfTwo() {
    const auto first = Take(), second = Take();
    EXPECT_TRUE(Complete(*first, "a").ok());
    EXPECT_TRUE(Complete(*second, "b").ok());
    return Take();
  }

  absl::Status Restart(const Lease& lease, int64_t shard, const std::string& content) {
    return store_->RestartShard(lease, shard, Blob(content).digest, absl::DataLossError("lost"));
  }

  std::vector<OrphanedBlob> Orphans(absl::Duration grace = absl::Hours(1)) {
    return store_->TakeOrphanedBlobs(grace).value();
  }

  Job Get(const std::string& id) { return store_->GetJob("lab", id).value(); }

  const std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, PartialTableTest, testing::ValuesIn(kDatabases),
                         NameOfDatabase);

TEST_P(PartialTableTest, ACommitNamesABlobAndTheNextOneDropsIt) {
  Create(1);
  const auto lease = Take();
  ASSERT_TRUE(Commit(*lease, "first").ok());
  const auto progress = store_->ReadProgress(*lease, 0);
  EXPECT_EQ(progress->partial_blob, Blob("first"));
  EXPECT_EQ(progress->partial, "");
  EXPECT_EQ(progress->cursor, "5");
  ASSERT_TRUE(store_->MarkOrphanedBlobs({Blob("first").digest}).ok());
  EXPECT_THAT(Orphans(absl::ZeroDuration()), IsEmpty()) << "it is named";

  ASSERT_TRUE(Commit(*lease, "second").ok());
  EXPECT_THAT(Orphans(absl::InfiniteDuration()), ElementsAre(Dropped("first")))
      << "without a grace, also where other bytes are kept for ever";
  EXPECT_THAT(Orphans(), IsEmpty()) << "returned once";
  ASSERT_TRUE(Complete(*lease, "third").ok());
  EXPECT_THAT(Orphans(), ElementsAre(Dropped("second")));
}

TEST_P(PartialTableTest, APartialMayMoveFromABlobIntoTheRowAndBack) {
  Create(1);
  const auto lease = Take();
  ASSERT_TRUE(Commit(*lease, "blob").ok());
  ASSERT_TRUE(store_->CommitProgress(*lease, {.partial = "small", .work_done = 6}).ok());
  EXPECT_EQ(store_->ReadProgress(*lease, 0)->partial, "small");
  EXPECT_EQ(store_->ReadProgress(*lease, 0)->partial_blob, StoredBlob());
  EXPECT_THAT(Orphans(), ElementsAre(Dropped("blob")));
  ASSERT_TRUE(Commit(*lease, "blob again").ok());
  EXPECT_EQ(store_->ReadProgress(*lease, 0)->partial, "");
  EXPECT_THAT(Orphans(), IsEmpty());
}

TEST_P(PartialTableTest, WhatWasMarkedBeforeItsCommitCameIsNamedByIt) {
  Create(1);
  const auto lease = Take();
  ASSERT_TRUE(store_->MarkOrphanedBlobs({Blob("slow").digest}).ok());
  ASSERT_TRUE(Commit(*lease, "slow").ok());
  database_->Advance(absl::Hours(2));
  EXPECT_THAT(Orphans(), IsEmpty());
}

TEST_P(PartialTableTest, AJobThatSucceedsDropsThemAll) {
  Create(2);
  const auto merge = TakeMergeOfTwo();
  ASSERT_TRUE(store_->CompleteJob(*merge, "{}", {}).ok());
  EXPECT_THAT(Orphans(), UnorderedElementsAre(Dropped("a"), Dropped("b")));
}

TEST_P(PartialTableTest, AFailedJobKeepsThemUntilItIsDeletedOrTheirTimeIsOver) {
  const std::string deleted = Create(2);
  const auto first = Take();
  ASSERT_TRUE(Commit(*first, "a").ok());
  ASSERT_TRUE(store_->FailJob(*first, absl::InvalidArgumentError("bad")).ok());
  Create(1);
  const auto other = Take();
  ASSERT_TRUE(Commit(*other, "b").ok());
  ASSERT_TRUE(store_->FailJob(*other, absl::InvalidArgumentError("bad")).ok());
  EXPECT_THAT(Orphans(), IsEmpty());
  ASSERT_TRUE(store_->DeleteJob("lab", deleted).ok());
  EXPECT_THAT(Orphans(), ElementsAre(Dropped("a")));
  database_->Advance(absl::Hours(24));
  EXPECT_EQ(store_->Expire({.partials = absl::Hours(24)}, 100)->partials, 1);
  EXPECT_THAT(Orphans(), ElementsAre(Dropped("b")));
}

TEST_P(PartialTableTest, AMergeThatLacksAShardWaitsUntilItIsDoneAgain) {
  const std::string id = Create(2);
  const auto merge = TakeMergeOfTwo();
  ASSERT_TRUE(Restart(*merge, 1, "other").ok());
  EXPECT_EQ(Get(id).shards_done, 2) << "it has another partial by now";
  ASSERT_TRUE(Restart(*merge, 1, "b").ok());
  EXPECT_THAT(Orphans(), ElementsAre(Dropped("b"))) << "what is left of it";
  EXPECT_EQ(Get(id).shards_done, 1);
  EXPECT_EQ(Get(id).work_done, kUnits);
  EXPECT_THAT(Get(id).observed, IsEmpty()) << "none is counted twice";
  ASSERT_TRUE(store_->FailShard(*merge, absl::DataLossError("lost")).ok());

  const auto again = Take();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->shard, 1);
  EXPECT_EQ(store_->ReadProgress(*again, 1)->work_done, 0);
  database_->Advance(absl::Seconds(2));  // behind the pause of the merge
  EXPECT_EQ(Take(), std::nullopt) << "the merge waits";
  ASSERT_TRUE(Complete(*again, "c").ok());
  const auto next = Take();
  ASSERT_TRUE(next);
  EXPECT_TRUE(next->is_merge());
  EXPECT_EQ(next->failures, 1);
  EXPECT_EQ(store_->ReadProgress(*next, 0)->partial_blob, Blob("a"));
  ASSERT_TRUE(store_->CompleteJob(*next, "{}", {}).ok());
  EXPECT_EQ(Get(id).work_done, 2 * kUnits);
}

TEST_P(PartialTableTest, AMergeThatFailsItsJobForALostPartialIsRetriedWithItsShard) {
  const std::string id = Create(2);
  const auto merge = TakeMergeOfTwo();
  ASSERT_TRUE(Restart(*merge, 0, "a").ok());
  ASSERT_TRUE(store_->FailJob(*merge, absl::DataLossError("lost")).ok());
  ASSERT_TRUE(store_->RetryJob("lab", id, {}).ok());
  const auto again = Take();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->shard, 0);
  EXPECT_EQ(Take(), std::nullopt);
}

TEST_P(PartialTableTest, AShardThatLostItsOwnPartialKeepsItsLease) {
  const std::string id = Create(1);
  const auto late = Take();
  ASSERT_TRUE(Commit(*late, "a").ok());
  ASSERT_TRUE(Restart(*late, 0, "a").ok());
  EXPECT_EQ(Get(id).work_done, 0);
  EXPECT_EQ(Take(), std::nullopt) << "it is still leased";
  ASSERT_TRUE(Commit(*late, "b").ok());
  EXPECT_EQ(Get(id).work_done, 5);

  database_->Advance(absl::Minutes(1));
  ASSERT_TRUE(store_->Sweep().ok());
  EXPECT_EQ(Restart(*late, 0, "b").code(), absl::StatusCode::kAborted)
      << "who lost the lease restarts nothing";
  EXPECT_EQ(Get(id).work_done, 5);
}

TEST_P(PartialTableTest, OfAPartialThatCannotBeReadWhoHoldsTheShardOrFoundItDoneRestartsIt) {
  const std::string id = Create(2);
  const absl::Status damaged = absl::DataLossError("damaged");
  const auto first = Take();
  ASSERT_TRUE(store_->CommitProgress(*first, {.partial = "in the row", .work_done = 5}).ok());
  ASSERT_TRUE(store_->RestartShard(*first, 0, /*lost=*/"", damaged).ok());
  EXPECT_EQ(store_->ReadProgress(*first, 0)->partial, "");
  ASSERT_TRUE(store_->CompleteShard(*first, {.partial = "done", .work_done = kUnits}).ok());
  const auto second = Take();
  ASSERT_TRUE(store_->RestartShard(*second, 0, /*lost=*/"", damaged).ok());
  EXPECT_EQ(Get(id).shards_done, 0);
  const auto again = Take();
  ASSERT_TRUE(again);
  EXPECT_EQ(again->shard, 0);
  ASSERT_TRUE(store_->CommitProgress(*again, {.partial = "anew", .work_done = 5}).ok());
  ASSERT_TRUE(store_->RestartShard(*second, 0, /*lost=*/"", damaged).ok());
  EXPECT_EQ(store_->ReadProgress(*again, 0)->partial, "anew") << "somebody is doing it again";
}

TEST_P(PartialTableTest, AShardThatIsLostEachTimeEndsItsJobWithTheCauseUntilThatIsRetried) {
  const std::string id = Create(1);
  auto lease = Take();
  const auto lose = [&](const std::string& content) {
    ASSERT_TRUE(Commit(*lease, content).ok()) << "it gets on each time";
    ASSERT_TRUE(Restart(*lease, 0, content).ok());
  };
  for (const int round : {1, 2}) {
    for (int restart = 1; restart < RetryPolicy().max_shard_failures; ++restart) {
      lose(absl::StrCat(round, ".", restart));
      EXPECT_EQ(Get(id).state, JobState::kRunning);
    }
    lose(absl::StrCat(round, ".last"));
    const Job job = Get(id);
    EXPECT_EQ(job.state, JobState::kFailed);
    ASSERT_TRUE(job.error);
    EXPECT_EQ(job.error->code, absl::StatusCode::kDataLoss);
    EXPECT_EQ(job.error->message, "lost");
    EXPECT_EQ(job.error->shard, 0);
    EXPECT_EQ(store_->FailShard(*lease, absl::DataLossError("lost")).code(),
              absl::StatusCode::kAborted);
    ASSERT_TRUE(store_->RetryJob("lab", id, {}).ok());
    lease = Take();
    ASSERT_TRUE(lease);
  }
}

TEST_P(PartialTableTest, ADatabaseKeepsItsIdentity) {
  const std::string identity = store_->Identity().value();
  EXPECT_GE(identity.size(), 32u);
  store_.reset();
  store_ = database_->Open({}).value();
  EXPECT_EQ(store_->Identity().value(), identity);
  const auto other = MakeDatabase(Database::kSqlite);
  EXPECT_NE(other->Open({}).value()->Identity().value(), identity);
}

}  // namespace
}  // namespace valuescope::store
