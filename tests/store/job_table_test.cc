// The durable queue: states, leases, fences, fairness, in every database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/store.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class JobTableTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    store_.reset();
    auto opened = database_->Open({});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  NewJob TwoShards(const std::string& tenant = "lab") {
    NewJob job;
    job.tenant = tenant;
    job.kind = "count";
    job.spec = "{}";
    job.num_shards = 2;
    job.total_work = 20;
    return job;
  }

  std::string Create(const NewJob& job) {
    const auto created = store_->CreateJob(job, {});
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->id : "";
  }

  std::optional<Lease> Take() { return TakeOf({{.kind = "count", .needs = ""}}); }

  std::optional<Lease> TakeOf(const std::vector<WorkType>& can_run) {
    auto lease = store_->LeaseWork({.can_run = can_run, .duration = absl::Seconds(30)});
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *lease : std::nullopt;
  }

  std::string PartialOf(const Lease& lease, int64_t shard) {
    const auto progress = store_->ReadProgress(lease, shard);
    EXPECT_TRUE(progress.ok()) << progress.status();
    return progress.ok() ? progress->partial : "";
  }

  absl::Status Complete(const Lease& lease, const std::string& partial) {
    return store_->CompleteShard(lease, {.partial = partial, .cursor = "", .work_done = 10});
  }

  Job Get(const std::string& id, const std::string& tenant = "lab") {
    auto job = store_->GetJob(tenant, id);
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? *job : Job();
  }

  // Runs both shards and the merge of the only job there is.
  void RunToTheEnd() {
    while (const std::optional<Lease> lease = Take()) {
      if (lease->is_merge()) {
        ASSERT_TRUE(store_->CompleteJob(*lease, "{}", {}).ok());
      } else {
        ASSERT_TRUE(Complete(*lease, "p").ok());
      }
    }
  }

  static Resource Artifact(const std::string& id, const std::string& content) {
    Resource resource;
    resource.kind = ResourceKind::kArtifact;
    resource.id = id;
    resource.digest = resource.blob_digest = Sha256Hex(content);
    resource.role = "scores";
    return resource;
  }

  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, JobTableTest, testing::ValuesIn(kDatabases), NameOfDatabase);

void ExpectLeaseLost(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(DetailsOf(status).reason, "LEASE_LOST");
}

TEST_P(JobTableTest, AJobGoesFromQueuedOverItsShardsAndMergeToSucceeded) {
  NewJob job = TwoShards();
  job.request = std::string("\0request", 8);
  job.metadata = "{\"unit\":\"responses\"}";
  const std::string id = Create(job);
  EXPECT_EQ(Get(id).state, JobState::kQueued);
  EXPECT_EQ(Get(id).started_at, std::nullopt);

  database_->Advance(absl::Seconds(5));
  const auto first = Take();
  const auto second = Take();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->shard, 0);
  EXPECT_EQ(second->shard, 1);
  EXPECT_EQ(first->spec, "{}");
  EXPECT_EQ(Get(id).state, JobState::kRunning);
  EXPECT_EQ(Get(id).started_at, database_->Now());

  ASSERT_TRUE(Complete(*second, "second").ok());
  EXPECT_EQ(Take(), std::nullopt) << "the merge waits for every shard";
  ASSERT_TRUE(Complete(*first, "first").ok());
  EXPECT_EQ(Get(id).shards_done, 2);
  EXPECT_EQ(Get(id).work_done, 20);

  const auto merge = Take();
  ASSERT_TRUE(merge && merge->is_merge());
  EXPECT_EQ(PartialOf(*merge, 0), "first");
  EXPECT_EQ(PartialOf(*merge, 1), "second");
  EXPECT_EQ(DetailsOf(store_->ReadProgress(*merge, 2).status()).field, "shard");
  EXPECT_EQ(Take(), std::nullopt) << "only one worker merges";
  ASSERT_TRUE(store_->CompleteJob(*merge, "{\"n\":2}", {Artifact(id + ".scores", "x")}).ok());

  Open();
  const Job done = Get(id);
  EXPECT_EQ(done.state, JobState::kSucceeded);
  EXPECT_EQ(done.result, "{\"n\":2}");
  EXPECT_EQ(done.request, job.request);
  EXPECT_EQ(done.metadata, job.metadata);
  EXPECT_EQ(done.finished_at, database_->Now());
  EXPECT_EQ(done.rescues, 0);
  const auto artifacts =
      store_->ListResources("lab", ResourceKind::kArtifact, {.job_id = id}, {})->resources;
  ASSERT_EQ(artifacts.size(), 1u);
  EXPECT_EQ(artifacts[0].id, id + ".scores");
  EXPECT_EQ(artifacts[0].role, "scores");
}

TEST_P(JobTableTest, ResultAndStateAreOneTransaction) {
  const std::string id = Create(TwoShards());
  ASSERT_TRUE(Complete(*Take(), "a").ok());
  ASSERT_TRUE(Complete(*Take(), "b").ok());
  const auto merge = Take();
  EXPECT_FALSE(
      store_->CompleteJob(*merge, "{}", {Artifact("fine", "x"), Artifact("../bad", "y")}).ok());
  EXPECT_EQ(Get(id).state, JobState::kRunning);
  EXPECT_FALSE(store_->GetResource("lab", ResourceKind::kArtifact, "fine").ok());
  ASSERT_TRUE(store_->CompleteJob(*merge, "{}", {Artifact("fine", "x")}).ok());
}

TEST_P(JobTableTest, TheLateWorkerOfAnExpiredLeaseCanWriteNothing) {
  const std::string id = Create(TwoShards());
  const auto late = Take();
  ASSERT_TRUE(
      store_->CommitProgress(*late, {.partial = "half", .cursor = "5", .work_done = 5}).ok());
  database_->Advance(absl::Seconds(29));
  EXPECT_THAT(*store_->Sweep(), IsEmpty());
  database_->Advance(absl::Seconds(1));
  EXPECT_THAT(*store_->Sweep(), ElementsAre(id));
  database_->Advance(absl::Seconds(1));

  const auto next = Take();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->shard, 0);
  const auto progress = store_->ReadProgress(*next, next->shard);
  ASSERT_TRUE(progress.ok()) << progress.status();
  EXPECT_EQ(progress->partial, "half");
  EXPECT_EQ(progress->cursor, "5");
  EXPECT_EQ(progress->work_done, 5);
  ExpectLeaseLost(store_->ReadProgress(*late, late->shard).status());
  ExpectLeaseLost(
      store_->CommitProgress(*late, {.partial = "late", .cursor = "9", .work_done = 9}));
  ExpectLeaseLost(Complete(*late, "late"));
  ExpectLeaseLost(store_->ExtendLease(*late, absl::Seconds(30)));
  ExpectLeaseLost(store_->FailJob(*late, absl::InvalidArgumentError("late")));
  ExpectLeaseLost(store_->FailShard(*late, absl::InternalError("late")));
  EXPECT_TRUE(store_->ReleaseLease(*late).ok());

  ASSERT_TRUE(Complete(*next, "whole").ok()) << "the new lease is untouched by all that";
  const Job job = Get(id);
  EXPECT_EQ(job.rescues, 1);
  EXPECT_EQ(job.work_done, 10);
  EXPECT_EQ(*store_->TotalRescues(), 1);
}

TEST_P(JobTableTest, AnExtendedLeaseDoesNotExpire) {
  Create(TwoShards());
  const auto lease = Take();
  database_->Advance(absl::Seconds(20));
  ASSERT_TRUE(store_->ExtendLease(*lease, absl::Seconds(30)).ok());
  database_->Advance(absl::Seconds(20));
  EXPECT_THAT(*store_->Sweep(), IsEmpty());
  EXPECT_TRUE(Complete(*lease, "p").ok());
}

TEST_P(JobTableTest, APoisonShardFailsItsJobAndTheNeighboursGoOn) {
  NewJob poison = TwoShards();
  poison.num_shards = 1;
  const std::string poisoned = Create(poison);
  const std::string neighbour = Create(poison);
  for (int attempt = 0; attempt < 3; ++attempt) {
    const auto lease = Take();
    ASSERT_TRUE(lease);
    ASSERT_EQ(lease->job_id, poisoned);
    database_->Advance(absl::Seconds(30));
    ASSERT_THAT(*store_->Sweep(), ElementsAre(poisoned));
    database_->Advance(absl::Seconds(10));
  }
  const Job job = Get(poisoned);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.rescues, 3);
  ASSERT_TRUE(job.error);
  EXPECT_EQ(job.error->reason, "WORKER_LOST");
  EXPECT_EQ(job.error->shard, 0);
  EXPECT_EQ(Take()->job_id, neighbour);
}

TEST_P(JobTableTest, AShardThatFailsPausesAndProgressForgivesItsFailures) {
  const std::string id = Create(TwoShards());
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto lease = Take();
    ASSERT_EQ(lease->shard, 0);
    ASSERT_TRUE(
        store_->CommitProgress(*lease, {.partial = "p", .cursor = "c", .work_done = 1}).ok());
    ASSERT_TRUE(store_->FailShard(*lease, absl::ResourceExhaustedError("memory")).ok());
    const auto other = Take();
    ASSERT_EQ(other->shard, 1) << "shard 0 pauses";
    ASSERT_TRUE(store_->ReleaseLease(*other).ok());
    database_->Advance(absl::Seconds(1));
  }
  EXPECT_EQ(Get(id).state, JobState::kRunning);
  ASSERT_TRUE(store_->FailShard(*Take(), absl::ResourceExhaustedError("memory")).ok());
  database_->Advance(absl::Seconds(1));
  EXPECT_EQ(Take()->shard, 1) << "the pause has doubled";
  database_->Advance(absl::Seconds(1));
  EXPECT_EQ(Get(id).state, JobState::kRunning) << "two failures since the last progress";
  ASSERT_TRUE(store_->FailShard(*Take(), absl::ResourceExhaustedError("memory")).ok());
  EXPECT_EQ(Get(id).state, JobState::kFailed);
  EXPECT_EQ(Get(id).error->code, absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Get(id).error->message, "memory");
}

TEST_P(JobTableTest, AUserErrorFailsTheJobAtOnceAndStopsItsOtherShards) {
  const std::string id = Create(TwoShards());
  const auto first = Take();
  const auto second = Take();
  ASSERT_TRUE(store_->FailJob(*second, InvalidField("spec.layers", "must be below 30")).ok());
  const Job job = Get(id);
  EXPECT_EQ(job.state, JobState::kFailed);
  EXPECT_EQ(job.error->code, absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(job.error->reason, "INVALID_FIELD");
  EXPECT_EQ(job.error->shard, 1);
  EXPECT_EQ(job.rescues, 0);
  ExpectLeaseLost(Complete(*first, "p"));
  EXPECT_EQ(Take(), std::nullopt);
}

TEST_P(JobTableTest, CancelIsImmediateWithoutLeasesAndElseWaitsForTheLastOne) {
  const std::string idle = Create(TwoShards());
  EXPECT_EQ(store_->RequestCancel("lab", idle)->state, JobState::kCancelled);

  const std::string busy = Create(TwoShards());
  const auto first = Take();
  const auto second = Take();
  EXPECT_EQ(store_->RequestCancel("lab", busy)->state, JobState::kCancelling);
  EXPECT_EQ(store_->RequestCancel("lab", busy)->state, JobState::kCancelling) << "idempotent";
  ExpectLeaseLost(store_->ExtendLease(*first, absl::Seconds(30)));
  ExpectLeaseLost(Complete(*first, "p"));
  ASSERT_TRUE(store_->ReleaseLease(*first).ok());
  EXPECT_EQ(Get(busy).state, JobState::kCancelling);
  EXPECT_EQ(Take(), std::nullopt) << "nothing of it is leased any more";
  database_->Advance(absl::Seconds(30));
  EXPECT_THAT(*store_->Sweep(), ElementsAre(busy)) << "the second worker died";
  EXPECT_EQ(Get(busy).state, JobState::kCancelled);
  EXPECT_EQ(Get(busy).finished_at, database_->Now());
  EXPECT_EQ(store_->RequestCancel("lab", busy)->state, JobState::kCancelled);
  EXPECT_EQ(store_->RequestCancel("other", busy).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(JobTableTest, RetryKeepsShardsThatAreDone) {
  const std::string id = Create(TwoShards());
  ASSERT_TRUE(Complete(*Take(), "kept").ok());
  EXPECT_EQ(store_->RetryJob("lab", id, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(store_->FailJob(*Take(), absl::InvalidArgumentError("bad")).ok());
  const auto retried = store_->RetryJob("lab", id, {.request_id = "r", .request_digest = "d"});
  ASSERT_TRUE(retried.ok());
  EXPECT_EQ(retried->state, JobState::kQueued);
  EXPECT_EQ(retried->error, std::nullopt);
  EXPECT_EQ(retried->attempts, 2);
  EXPECT_EQ(retried->shards_done, 1);
  EXPECT_TRUE(store_->RetryJob("lab", id, {.request_id = "r", .request_digest = "d"}).ok())
      << "sent again, not asked again";
  EXPECT_EQ(Get(id).attempts, 2);
  const auto lease = Take();
  EXPECT_EQ(lease->shard, 1);
  ASSERT_TRUE(Complete(*lease, "redone").ok());
  const auto merge = Take();
  ASSERT_TRUE(merge && merge->is_merge());
  EXPECT_EQ(PartialOf(*merge, 0), "kept");
  EXPECT_EQ(PartialOf(*merge, 1), "redone");
}

TEST_P(JobTableTest, TenantsTakeTurnsAndPriorityOrdersWithinATenant) {
  const std::string a_low = Create(TwoShards("a"));
  NewJob urgent = TwoShards("a");
  urgent.priority = 5;
  const std::string a_high = Create(urgent);
  const std::string b = Create(TwoShards("b"));
  std::vector<std::string> order;
  while (const auto lease = Take()) order.push_back(lease->job_id);
  EXPECT_THAT(order, ElementsAre(a_high, b, a_high, b, a_low, a_low));
}

TEST_P(JobTableTest, OnlyKindsThatTheWorkerKnowsAreLeased) {
  Create(TwoShards());
  EXPECT_EQ(TakeOf({{.kind = "other", .needs = ""}, {.kind = "x\"];", .needs = "\xff\"]"}}),
            std::nullopt);
  EXPECT_EQ(TakeOf({}), std::nullopt);
  EXPECT_TRUE(Take());
}

TEST_P(JobTableTest, WorkThatCannotBeRunHidesNoneThatCanWhoeverItBelongsTo) {
  NewJob needy = TwoShards();
  needy.needs = "models/a";
  needy.priority = 100;
  const std::string first = Create(needy);
  NewJob behind = TwoShards();
  behind.needs = "models/b";
  const std::string second = Create(behind);
  NewJob other = TwoShards("other");
  other.needs = "models/b";
  const std::string third = Create(other);
  EXPECT_THAT(*store_->ListWork(), testing::UnorderedElementsAre(WorkType{"count", "models/a"},
                                                                 WorkType{"count", "models/b"}));
  EXPECT_EQ(TakeOf({{.kind = "count", .needs = ""}}), std::nullopt);
  std::vector<std::string> taken;
  const std::vector<WorkType> ready = {{.kind = "count", .needs = "models/b"}};
  while (const auto lease = TakeOf(ready)) taken.push_back(lease->job_id);
  EXPECT_THAT(taken, ElementsAre(second, third, second, third));
  EXPECT_EQ(Get(first).state, JobState::kQueued);
  EXPECT_EQ(Get(first).needs, "models/a");
  EXPECT_EQ(store_->RequestCancel("lab", first)->state, JobState::kCancelled);
  EXPECT_THAT(*store_->ListWork(), ElementsAre(WorkType{"count", "models/b"}));
}

TEST_P(JobTableTest, AMergeThatKillsItsWorkerEachTimeFailsItsJob) {
  const std::string id = Create(TwoShards());
  ASSERT_TRUE(Complete(*Take(), "a").ok());
  ASSERT_TRUE(Complete(*Take(), "b").ok());
  for (int life = 0; life < 3; ++life) {
    const auto merge = Take();
    ASSERT_TRUE(merge && merge->is_merge()) << life;
    Open();  // as a process that died while it read the partials leaves it
    database_->Advance(absl::Minutes(1));
    ASSERT_TRUE(store_->Sweep().ok());
    database_->Advance(absl::Minutes(1));
  }
  EXPECT_EQ(Get(id).state, JobState::kFailed);
  EXPECT_EQ(Get(id).error->reason, "WORKER_LOST");
}

TEST_P(JobTableTest, ABlobIsNamedByTheJobsThatReadItUntilTheLastIsDeleted) {
  NewJob job = TwoShards();
  job.blobs = {Sha256Hex("data")};
  const std::string first = Create(job), second = Create(job);
  ASSERT_TRUE(store_->MarkOrphanedBlobs(job.blobs).ok());
  for (const std::string& id : {first, second}) {
    EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()), IsEmpty());
    ASSERT_TRUE(store_->RequestCancel("lab", id).ok());
    ASSERT_TRUE(store_->DeleteJob("lab", id).ok());
  }
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()),
              ElementsAre(OrphanedBlob{Sha256Hex("data")}));
  job.blobs = {"../data"};
  EXPECT_EQ(DetailsOf(store_->CreateJob(job, {}).status()).field, "blobs");
}

TEST_P(JobTableTest, AJobWhoseInputWasDeletedCannotBeRetried) {
  ASSERT_TRUE(store_->PutResources("lab", {Artifact("data", "rows")}, {}).ok());
  NewJob job = TwoShards();
  job.inputs = {{.kind = ResourceKind::kArtifact, .id = "data"}};
  const std::string id = Create(job);
  ASSERT_TRUE(store_->RequestCancel("lab", id).ok());
  ASSERT_TRUE(store_->DeleteResource("lab", ResourceKind::kArtifact, "data").ok());
  const absl::Status refused = store_->RetryJob("lab", id, {}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(refused).reason, "INPUT_DELETED");
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("`artifacts/data`"));
  EXPECT_EQ(Get(id).state, JobState::kCancelled);
  ASSERT_TRUE(store_->PutResources("lab", {Artifact("data", "rows")}, {}).ok());
  EXPECT_TRUE(store_->RetryJob("lab", id, {}).ok());
}

TEST_P(JobTableTest, CreatingTwiceWithOneRequestIdMakesOneJob) {
  const IdempotencyKey key{.request_id = "r", .request_digest = "d"};
  const auto first = store_->CreateJob(TwoShards(), key);
  const auto again = store_->CreateJob(TwoShards(), key);
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(first->id, again->id);
  EXPECT_EQ(store_->ListJobs("lab", {}, {})->jobs.size(), 1u);
  EXPECT_EQ(
      store_->CreateJob(TwoShards(), {.request_id = "r", .request_digest = "e"}).status().code(),
      absl::StatusCode::kAlreadyExists);
  const auto other = store_->CreateJob(TwoShards("other"), key);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(other->id, first->id);
}

TEST_P(JobTableTest, ListsFilterByStateAndKindAndHideOtherTenants) {
  const std::string first = Create(TwoShards());
  const std::string second = Create(TwoShards());
  NewJob other_kind = TwoShards();
  other_kind.kind = "other";
  const std::string third = Create(other_kind);
  Create(TwoShards("stranger"));
  ASSERT_TRUE(store_->RequestCancel("lab", second).ok());
  const auto ids = [&](const JobFilter& filter) {
    std::vector<std::string> found;
    const auto page = store_->ListJobs("lab", filter, {});
    EXPECT_TRUE(page.ok());
    for (const Job& job : page->jobs) found.push_back(job.id);
    return found;
  };
  EXPECT_THAT(ids({}), ElementsAre(third, second, first));
  EXPECT_THAT(ids({.states = {JobState::kQueued}}), ElementsAre(third, first));
  EXPECT_THAT(ids({.kind = "count"}), ElementsAre(second, first));
  EXPECT_EQ(store_->GetJob("stranger", first).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(JobTableTest, DeletingAJobTakesItsArtifactsAndLeavesItsVectors) {
  const std::string id = Create(TwoShards());
  EXPECT_EQ(store_->DeleteJob("lab", id).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Complete(*Take(), "a").ok());
  ASSERT_TRUE(Complete(*Take(), "b").ok());
  Resource vector = Artifact("v", "vector");
  vector.kind = ResourceKind::kVector;
  ASSERT_TRUE(store_->CompleteJob(*Take(), "{}", {Artifact("a", "artifact"), vector}).ok());
  EXPECT_EQ(store_->DeleteJob("other", id).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(store_->DeleteJob("lab", id).ok());
  EXPECT_EQ(store_->GetJob("lab", id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(store_->GetResource("lab", ResourceKind::kArtifact, "a").ok());
  EXPECT_TRUE(store_->GetResource("lab", ResourceKind::kVector, "v").ok());
  EXPECT_THAT(*store_->TakeOrphanedBlobs(absl::ZeroDuration()),
              ElementsAre(OrphanedBlob{Sha256Hex("artifact")}));
}

TEST_P(JobTableTest, WhatAnUnfinishedJobReadsCannotBeDeleted) {
  ASSERT_TRUE(store_->PutResources("lab", {Artifact("data", "rows")}, {}).ok());
  NewJob job = TwoShards();
  job.inputs = {{.kind = ResourceKind::kArtifact, .id = "data"}};
  const std::string reader = Create(job);
  const absl::Status refused = store_->DeleteResource("lab", ResourceKind::kArtifact, "data");
  EXPECT_EQ(DetailsOf(refused).reason, "RESOURCE_IN_USE");
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("`jobs/" + reader + "`"));
  RunToTheEnd();
  EXPECT_TRUE(store_->DeleteResource("lab", ResourceKind::kArtifact, "data").ok());
  EXPECT_EQ(store_->CreateJob(job, {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->ListJobs("lab", {}, {})->jobs.size(), 1u) << "nothing of the failed one stays";
}

TEST_P(JobTableTest, NumbersOutOfRangeAreRefused) {
  for (const int64_t shards : {int64_t{0}, int64_t{-1}, kMaxShards + 1}) {
    NewJob job = TwoShards();
    job.num_shards = shards;
    EXPECT_EQ(DetailsOf(store_->CreateJob(job, {}).status()).field, "num_shards");
  }
  NewJob job = TwoShards();
  job.priority = 101;
  EXPECT_EQ(DetailsOf(store_->CreateJob(job, {}).status()).field, "priority");
}

TEST_P(JobTableTest, ALeaseTellsWhetherThereIsSomethingToReadOfItsShard) {
  Create(TwoShards());
  const std::optional<Lease> first = Take();
  ASSERT_TRUE(first);
  EXPECT_FALSE(first->begun);
  ASSERT_TRUE(store_->ReleaseLease(*first).ok());
  const std::optional<Lease> again = Take();
  EXPECT_FALSE(again->begun) << "nothing was committed";
  ASSERT_TRUE(
      store_->CommitProgress(*again, {.partial = "half", .cursor = "c", .work_done = 5}).ok());
  ASSERT_TRUE(store_->ReleaseLease(*again).ok());
  const std::optional<Lease> begun = Take();
  EXPECT_EQ(begun->shard, again->shard);
  EXPECT_TRUE(begun->begun);
  EXPECT_EQ(PartialOf(*begun, begun->shard), "half");
  EXPECT_FALSE(Take()->begun) << "the other shard";
}

TEST_P(JobTableTest, OfAJobThatIsKnownTheSpecIsNotReadAgain) {
  const std::string id = Create(TwoShards());
  LeaseRequest request{.can_run = {{.kind = "count", .needs = ""}}};
  request.known_job = "another";
  EXPECT_EQ((*store_->LeaseWork(request))->spec, "{}");
  request.known_job = id;
  EXPECT_EQ((*store_->LeaseWork(request))->spec, "");
}

TEST_P(JobTableTest, CountsJobsByTenantKindAndState) {
  Create(TwoShards());
  Create(TwoShards());
  ASSERT_TRUE(store_->RequestCancel("lab", Create(TwoShards())).ok());
  int64_t queued = 0, cancelled = 0;
  const auto counts = store_->CountJobs();
  ASSERT_TRUE(counts.ok());
  for (const JobCount& count : *counts) {
    EXPECT_EQ(count.tenant, "lab");
    EXPECT_EQ(count.kind, "count");
    if (count.state == JobState::kQueued) queued = count.count;
    if (count.state == JobState::kCancelled) cancelled = count.count;
  }
  EXPECT_EQ(queued, 2);
  EXPECT_EQ(cancelled, 1);
}

}  // namespace
}  // namespace valuescope::store
