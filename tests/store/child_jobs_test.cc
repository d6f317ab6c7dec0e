// Jobs that are parts of other jobs, in every database: begun once, waited for without a lease,
// cancelled, retried and deleted with the job that they are parts of.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/sha256.h"
#include "store/store.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class ChildJobsTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override { Open({}); }

  void Open(const TenantPolicies& tenants) {
    store_.reset();
    auto opened = database_->Open(tenants);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  static NewJob JobOf(const std::string& kind) {
    NewJob job;
    job.tenant = "lab";
    job.kind = kind;
    job.spec = "{}";
    job.total_work = 10;
    return job;
  }

  std::string Create(const NewJob& job) {
    const auto created = store_->CreateJob(job, {});
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->id : "";
  }

  std::optional<Lease> Take(const std::string& kind) {
    auto lease = store_->LeaseWork(
        {.can_run = {{.kind = kind, .needs = ""}}, .duration = absl::Seconds(30)});
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *lease : std::nullopt;
  }

  std::string Start(const Lease& parent, const std::string& phase) {
    const auto child = store_->StartChild(parent, phase, JobOf("part"));
    EXPECT_TRUE(child.ok()) << child.status();
    return child.ok() ? child->id : "";
  }

  absl::Status Await(const Lease& lease, int64_t ended) {
    return store_->AwaitChildren(lease, {.partial = "so far", .cursor = "", .work_done = 3}, ended,
                                 absl::Seconds(2));
  }

  // Runs the next part to its end.
  void FinishPart() {
    const auto shard = Take("part");
    ASSERT_TRUE(shard.has_value());
    ASSERT_TRUE(store_->CompleteShard(*shard, {.partial = "", .cursor = "", .work_done = 10}).ok());
    const auto merge = Take("part");
    ASSERT_TRUE(merge && merge->is_merge());
    Resource artifact;
    artifact.kind = ResourceKind::kArtifact;
    artifact.id = merge->job_id + ".summary";
    artifact.digest = artifact.blob_digest = Sha256Hex("x");
    artifact.role = "summary";
    artifact.job_id = merge->job_id;
    ASSERT_TRUE(store_->CompleteJob(*merge, "{}", {artifact}).ok());
  }

  Job Get(const std::string& id) {
    auto job = store_->GetJob("lab", id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : Job();
  }

  std::vector<std::string> Ids(const JobFilter& filter) {
    const auto page = store_->ListJobs("lab", filter, {});
    EXPECT_TRUE(page.ok()) << page.status();
    std::vector<std::string> ids;
    for (const Job& job : page->jobs) ids.push_back(job.id);
    return ids;
  }

  std::string ReasonOf(const absl::Status& status) { return DetailsOf(status).reason; }

  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, ChildJobsTest, testing::ValuesIn(kDatabases), NameOfDatabase);

TEST_P(ChildJobsTest, APartBeginsOnceWhoeverAsksForIt) {
  const std::string parent = Create(JobOf("whole"));
  const auto lease = Take("whole");
  const std::string child = Start(*lease, "first");
  EXPECT_EQ(Start(*lease, "first"), child);
  const std::string other = Start(*lease, "second");
  EXPECT_NE(other, child);
  EXPECT_EQ(Get(child).parent, parent);
  EXPECT_EQ(Get(child).phase, "first");
  EXPECT_EQ(Get(parent).parent, "");
  EXPECT_THAT(Ids({.parent = parent}), ElementsAre(other, child));
  EXPECT_THAT(Ids({}), ElementsAre(parent));
}

TEST_P(ChildJobsTest, WhoLostTheLeaseBeginsNothing) {
  Create(JobOf("whole"));
  const auto lost = Take("whole");
  database_->Advance(absl::Seconds(31));
  ASSERT_TRUE(store_->Sweep().ok());
  EXPECT_EQ(ReasonOf(store_->StartChild(*lost, "first", JobOf("part")).status()), "LEASE_LOST");
  EXPECT_EQ(ReasonOf(Await(*lost, 0)), "LEASE_LOST");
  EXPECT_EQ(Take("part"), std::nullopt);
}

TEST_P(ChildJobsTest, AParentThatWaitsHoldsNoLeaseAndGoesOnWhenAPartEnds) {
  // A tenant that may run one thing at a time.
  Open({.others = {.max_running = 1}, .named = {}});
  const std::string parent = Create(JobOf("whole"));
  const auto lease = Take("whole");
  Start(*lease, "first");
  ASSERT_TRUE(Await(*lease, 0).ok());
  EXPECT_EQ(Take("whole"), std::nullopt);
  EXPECT_EQ(Get(parent).work_done, 3);
  EXPECT_EQ(Get(parent).state, JobState::kRunning);
  FinishPart();
  const auto again = Take("whole");
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(store_->ReadProgress(*again, 0)->partial, "so far");
}

TEST_P(ChildJobsTest, APartThatEndedBeforeTheParentWaitsIsSeenAtOnce) {
  Create(JobOf("whole"));
  const auto lease = Take("whole");
  Start(*lease, "first");
  FinishPart();
  ASSERT_TRUE(Await(*lease, /*ended=*/0).ok());
  EXPECT_TRUE(Take("whole").has_value());
}

TEST_P(ChildJobsTest, AParentLooksAfterAWhileWhateverHappens) {
  Create(JobOf("whole"));
  const auto lease = Take("whole");
  Start(*lease, "first");
  ASSERT_TRUE(Await(*lease, 0).ok());
  database_->Advance(absl::Seconds(1));
  EXPECT_EQ(Take("whole"), std::nullopt);
  database_->Advance(absl::Seconds(2));
  EXPECT_TRUE(Take("whole").has_value());
}

TEST_P(ChildJobsTest, APartIsNeitherCancelledNorRetriedNorDeletedAlone) {
  Create(JobOf("whole"));
  const auto lease = Take("whole");
  const std::string child = Start(*lease, "first");
  EXPECT_EQ(ReasonOf(store_->RequestCancel("lab", child).status()), "CHILD_JOB");
  EXPECT_EQ(ReasonOf(store_->RetryJob("lab", child, {}).status()), "CHILD_JOB");
  EXPECT_EQ(ReasonOf(store_->DeleteJob("lab", child)), "CHILD_JOB");
}

TEST_P(ChildJobsTest, CancellingStopsThePartsAndEndsWithTheLastOfThem) {
  const std::string parent = Create(JobOf("whole"));
  const auto lease = Take("whole");
  const std::string running = Start(*lease, "first"), queued = Start(*lease, "second");
  ASSERT_TRUE(Await(*lease, 0).ok());
  const auto part = Take("part");
  ASSERT_TRUE(store_->RequestCancel("lab", parent).ok());
  EXPECT_EQ(Get(parent).state, JobState::kCancelling);
  EXPECT_EQ(Get(running).state, JobState::kCancelling);
  EXPECT_EQ(Get(queued).state, JobState::kCancelled);
  EXPECT_EQ(ReasonOf(store_->DeleteJob("lab", parent)), "JOB_NOT_FINISHED");
  ASSERT_TRUE(store_->ReleaseLease(*part).ok());
  EXPECT_EQ(Get(running).state, JobState::kCancelled);
  EXPECT_EQ(Get(parent).state, JobState::kCancelled);
}

TEST_P(ChildJobsTest, AFailedParentStopsItsPartsAndRetriesThemWithItself) {
  const std::string parent = Create(JobOf("whole"));
  const auto lease = Take("whole");
  const std::string child = Start(*lease, "first");
  const auto part = Take("part");
  ASSERT_TRUE(store_->FailJob(*lease, absl::InvalidArgumentError("no")).ok());
  EXPECT_EQ(Get(parent).state, JobState::kFailed);
  EXPECT_EQ(Get(child).state, JobState::kCancelling);
  EXPECT_EQ(ReasonOf(store_->RetryJob("lab", parent, {}).status()), "JOB_NOT_RETRYABLE");
  ASSERT_TRUE(store_->ReleaseLease(*part).ok());
  ASSERT_TRUE(store_->RetryJob("lab", parent, {}).ok());
  EXPECT_EQ(Get(parent).state, JobState::kQueued);
  EXPECT_EQ(Get(child).state, JobState::kQueued);
  FinishPart();
  EXPECT_EQ(Get(child).state, JobState::kSucceeded);
}

TEST_P(ChildJobsTest, PartsGoWithTheirParentAndNotBefore) {
  const std::string parent = Create(JobOf("whole"));
  const auto lease = Take("whole");
  const std::string child = Start(*lease, "first");
  FinishPart();
  database_->Advance(absl::Hours(2));
  const Retention kept = {.jobs = absl::Hours(1)};
  EXPECT_THAT(store_->Expire(kept, 100)->jobs, IsEmpty());
  ASSERT_TRUE(store_->RequestCancel("lab", parent).ok());
  ASSERT_TRUE(store_->ReleaseLease(*lease).ok());
  database_->Advance(absl::Hours(2));
  EXPECT_THAT(store_->Expire(kept, 100)->jobs, ElementsAre(parent));
  EXPECT_EQ(store_->GetJob("lab", child).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(store_->ListResources("lab", ResourceKind::kArtifact, {}, {})->resources, IsEmpty());
}

}  // namespace
}  // namespace valuescope::store
