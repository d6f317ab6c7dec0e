// Who is served next, and what a tenant may have, in every database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "store/fair_turns.h"
#include "store/store.h"
#include "tests/store/any_work.h"
#include "tests/store/earlier_format.h"
#include "tests/store/postgres_server.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::HasSubstr;
using testing::Not;

class FairQueueTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override { Open({}); }

  void Open(const TenantPolicies& tenants) {
    store_.reset();
    auto opened = database_->Open(tenants);
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  absl::StatusOr<Job> Create(const std::string& tenant, int64_t shards = 1, int priority = 0) {
    NewJob job;
    job.tenant = tenant;
    job.kind = "count";
    job.num_shards = shards;
    job.priority = priority;
    return store_->CreateJob(job, {});
  }

  std::optional<Lease> Take() {
    auto lease = store_->LeaseWork(kAnyWork);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return lease.ok() ? *lease : std::nullopt;
  }

  // Runs the next step, which takes a worker `cost`; whose it was.
  std::string RunNext(absl::Duration cost) {
    return RunNext([cost](const std::string&) { return cost; });
  }
  template <typename CostOf>
  std::string RunNext(const CostOf& cost_of) {
    std::optional<Lease> lease = Take();
    if (!lease) return "";
    lease->worked = cost_of(lease->tenant);
    const absl::Status done = lease->is_merge() ? store_->CompleteJob(*lease, "{}", {})
                                                : store_->CompleteShard(*lease, {});
    EXPECT_TRUE(done.ok()) << done;
    return lease->tenant;
  }

  bool OthersWait(Lease lease, absl::Duration worked) {
    lease.worked = worked;
    const auto wait = store_->OthersWait(lease, kAnyWork);
    EXPECT_TRUE(wait.ok()) << wait.status();
    return wait.ok() && *wait;
  }

  static Resource Vector(const std::string& id, int64_t bytes) {
    Resource resource;
    resource.kind = ResourceKind::kVector;
    resource.id = id;
    resource.digest = resource.blob_digest = Sha256Hex(id);
    resource.blob_size = bytes;
    return resource;
  }

  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, FairQueueTest, testing::ValuesIn(kDatabases), NameOfDatabase);

TEST_P(FairQueueTest, TenantsGetWorkerTimeByTheirWeightsWhateverTheirStepsCost) {
  Open({.others = {}, .named = {{"b", {.weight = 3}}}});
  ASSERT_TRUE(Create("a", 100).ok());
  ASSERT_TRUE(Create("b", 100).ok());
  std::map<std::string, absl::Duration> had;
  const auto cost_of = [](const std::string& tenant) {
    return tenant == "a" ? absl::Seconds(5) : absl::Seconds(1);
  };
  for (int step = 0; step < 50; ++step) {
    const std::string tenant = RunNext(cost_of);
    had[tenant] += cost_of(tenant);
  }
  // By turns of the longest step: 3 x 5 s of b for 5 s of a.
  EXPECT_NEAR(absl::ToDoubleSeconds(had["b"]), 3 * absl::ToDoubleSeconds(had["a"]), 15);
  EXPECT_GE(had["a"], absl::Seconds(15));
}

TEST_P(FairQueueTest, ATenantThatWasIdleCollectsNoCredit) {
  ASSERT_TRUE(Create("busy", 100).ok());
  for (int step = 0; step < 5; ++step) ASSERT_EQ(RunNext(absl::Seconds(100)), "busy");
  ASSERT_TRUE(Create("late", 100).ok());
  // It is behind by the last long step, which had started before it came, and by nothing more.
  for (int step = 0; step < 10; ++step) EXPECT_EQ(RunNext(absl::Seconds(10)), "late");
  std::map<std::string, int> turns;
  for (int step = 0; step < 10; ++step) ++turns[RunNext(absl::Seconds(10))];
  EXPECT_EQ(turns["busy"], 5);
  EXPECT_EQ(turns["late"], 5);
}

TEST_P(FairQueueTest, WorkersThatComeTogetherAreSharedOutBeforeAnyWorkIsMeasured) {
  Open({.others = {}, .named = {{"b", {.weight = 2}}}});
  ASSERT_TRUE(Create("a", 10).ok());
  ASSERT_TRUE(Create("b", 10).ok());
  std::map<std::string, int> leases;
  for (int worker = 0; worker < 6; ++worker) ++leases[Take()->tenant];
  EXPECT_EQ(leases["a"], 2);
  EXPECT_EQ(leases["b"], 4);
}

TEST_P(FairQueueTest, WorkThatPausesOrIsTakenHidesNoneBehindIt) {
  for (int i = 0; i < 18; ++i) {
    ASSERT_TRUE(Create("lab", 1, /*priority=*/2).ok());
    ASSERT_TRUE(store_->FailShard(*Take(), absl::InternalError("again later")).ok());
    ASSERT_TRUE(Create("lab", 1, /*priority=*/1).ok());
    ASSERT_TRUE(Take());
  }
  const std::string behind = Create("lab")->id;
  EXPECT_EQ(Take()->job_id, behind);
  EXPECT_EQ(Take(), std::nullopt);
}

TEST_P(FairQueueTest, AStepIsGivenBackForATenantThatIsBehindAndForHigherPriorityOnly) {
  ASSERT_TRUE(Create("a", 2).ok());
  const Lease lease = *Take();
  EXPECT_FALSE(OthersWait(lease, absl::Minutes(1))) << "its own job has more to do, nobody else";
  const std::string same = Create("a", 1)->id;
  EXPECT_FALSE(OthersWait(lease, absl::Minutes(1))) << "the same tenant's turn, and younger";
  ASSERT_TRUE(Create("a", 1, /*priority=*/1).ok());
  EXPECT_TRUE(OthersWait(lease, absl::ZeroDuration()));
  const Lease urgent = *Take();
  EXPECT_FALSE(OthersWait(lease, absl::Minutes(1))) << "somebody runs it";

  const std::string other = Create("b", 2)->id;
  EXPECT_TRUE(OthersWait(lease, absl::Minutes(1)));
  EXPECT_TRUE(OthersWait(urgent, absl::Minutes(1)));
  Lease theirs = *Take();
  ASSERT_EQ(theirs.job_id, other);
  EXPECT_FALSE(OthersWait(lease, absl::Minutes(1))) << "somebody runs it";
  ASSERT_TRUE(Create("b", 2).ok());
  EXPECT_TRUE(OthersWait(lease, absl::Minutes(1)));
  theirs.worked = absl::Minutes(2);
  ASSERT_TRUE(store_->CommitProgress(theirs, {}).ok());
  EXPECT_FALSE(OthersWait(lease, absl::Minutes(1))) << "b has had more by now";
  EXPECT_TRUE(OthersWait(lease, absl::Minutes(3)));
  ASSERT_TRUE(store_->RequestCancel("a", same).ok());
}

TEST_P(FairQueueTest, ATenantRunsNoMoreThanItMay) {
  Open({.others = {.max_running = 2}, .named = {{"b", {.max_running = 1}}}});
  ASSERT_TRUE(Create("a", 5).ok());
  ASSERT_TRUE(Create("b", 5).ok());
  std::map<std::string, std::vector<Lease>> leases;
  while (const auto lease = Take()) leases[lease->tenant].push_back(*lease);
  EXPECT_EQ(leases["a"].size(), 2u);
  ASSERT_EQ(leases["b"].size(), 1u);
  ASSERT_TRUE(Create("b", 1, /*priority=*/1).ok());
  EXPECT_TRUE(OthersWait(leases["b"][0], absl::ZeroDuration())) << "its own place becomes free";
  ASSERT_TRUE(store_->ReleaseLease(leases["b"][0]).ok());
  EXPECT_EQ(Take()->tenant, "b");
  EXPECT_EQ(Take(), std::nullopt);
}

TEST_P(FairQueueTest, ATenantWhoseQueueIsFullIsToldToComeBack) {
  Open({.others = {.max_queued = 2}, .named = {{"b", {.max_queued = 3}}}});
  ASSERT_TRUE(Create("a").ok());
  const std::string second = Create("a")->id;
  const absl::Status full = Create("a").status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(full).reason, "QUEUE_FULL");
  EXPECT_EQ(DetailsOf(full).retry_after, absl::Seconds(10)) << "nothing has begun";
  EXPECT_EQ(store_->ListJobs("a", {}, {})->jobs.size(), 2u) << "nothing of it stays";
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Create("b").ok());
  ASSERT_TRUE(store_->RequestCancel("a", second).ok());
  ASSERT_TRUE(Create("a").ok());
  EXPECT_EQ(DetailsOf(store_->RetryJob("a", second, {}).status()).reason, "QUEUE_FULL");
  ASSERT_EQ(Take()->tenant, "a");
  EXPECT_TRUE(store_->RetryJob("a", second, {}).ok()) << "what runs is queued no more";
  database_->Advance(absl::Seconds(90));
  const auto retry = DetailsOf(Create("a").status()).retry_after;
  ASSERT_TRUE(retry.has_value());
  EXPECT_GE(*retry, absl::Seconds(90)) << "one job has begun in all this time";
  EXPECT_LT(*retry, absl::Seconds(120));
}

TEST_P(FairQueueTest, ATenantStoresNoMoreBytesThanItMayAndIsToldWhatTakesThem) {
  Open({.others = {.max_stored_bytes = 1000}, .named = {}});
  ASSERT_TRUE(store_->PutResources("a", {Vector("large", 600), Vector("small", 300)}, {}).ok());
  database_->Advance(absl::Seconds(1));
  const absl::Status full = store_->PutResources("a", {Vector("more", 101)}, {}).status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(DetailsOf(full).reason, "STORAGE_QUOTA");
  EXPECT_FALSE(DetailsOf(full).retry_after.has_value());
  EXPECT_THAT(std::string(full.message()), HasSubstr("are `vectors/large`, `vectors/small`"));
  EXPECT_THAT(std::string(full.message()), Not(HasSubstr("vectors/more")));
  EXPECT_TRUE(store_->PutResources("a", {Vector("large", 600)}, {}).ok()) << "it is there";
  EXPECT_TRUE(store_->PutResources("b", {Vector("more", 101)}, {}).ok());
  ASSERT_TRUE(store_->DeleteResource("a", ResourceKind::kVector, "small").ok());
  EXPECT_TRUE(store_->PutResources("a", {Vector("more", 101)}, {}).ok());

  ASSERT_TRUE(Create("a").ok());
  ASSERT_TRUE(store_->CompleteShard(*Take(), {}).ok());
  const Lease merge = *Take();
  EXPECT_EQ(DetailsOf(store_->CompleteJob(merge, "{}", {Vector("result", 400)})).reason,
            "STORAGE_QUOTA");
  EXPECT_TRUE(store_->CompleteJob(merge, "{}", {Vector("result", 200)}).ok());
}

TEST(FairTurnsTest, WhoWaitedKeepsItsPlaceAndWhoWasIdleStartsWhereTheLastOneDid) {
  const absl::Duration served = absl::Seconds(100);
  EXPECT_EQ(StartOf({.virtual_time = absl::Seconds(130)}, served), absl::Seconds(130));
  EXPECT_EQ(StartOf({.virtual_time = absl::Seconds(3)}, served), served);
  EXPECT_EQ(StartOf({.virtual_time = absl::Seconds(99), .running = 2}, served), absl::Seconds(99))
      << "it was served meanwhile, and not told of it yet";
  EXPECT_EQ(TurnOf({.virtual_time = absl::Seconds(100), .weight = 2, .running = 3}, served).time,
            absl::Seconds(100) + 1.5 * kStepUnderWay);
}

// A database of the format before jobs stood in lines, in the middle of its work.
TEST(EarlierFormatTest, WorkInADatabaseOfTheFormatBeforeGoesOnInPostgres) {
  const auto database = MakeDatabase(Database::kPostgres);
  auto store = database->Open({}).value();
  NewJob job;
  job.tenant = "lab";
  job.kind = "count";
  job.spec = "spec";
  job.request = "request";
  job.metadata = "{}";
  job.num_shards = 2;
  const std::string id = store->CreateJob(job, {})->id;
  ASSERT_TRUE(
      store
          ->PutResources("other",
                         {Resource{.id = "x", .digest = Sha256Hex("x"), .metadata = "12345"}}, {})
          .ok());
  const LeaseRequest any = {.can_run = {{.kind = "count", .needs = ""}}};
  ASSERT_TRUE(store->CompleteShard(**store->LeaseWork(any), {.partial = "done"}).ok());
  store.reset();
  PostgresServer::Get().Script(absl::StrCat(FromLinesToNone("BYTEA"),
                                            "ALTER TABLE store_format DROP COLUMN compatible_from;"
                                            "UPDATE store_format SET version = 1"));

  store = database->Open({}).value();
  EXPECT_EQ(store->GetJob("lab", id)->request, "request");
  const auto lease = store->LeaseWork(any).value();
  ASSERT_TRUE(lease);
  EXPECT_EQ(lease->shard, 1);
  EXPECT_EQ(lease->spec, "spec");
  EXPECT_EQ(*store->LeaseWork(any), std::nullopt) << "the merge waits";
  ASSERT_TRUE(store->CompleteShard(*lease, {}).ok());
  const auto merge = store->LeaseWork(any).value();
  ASSERT_TRUE(merge && merge->is_merge());
  EXPECT_EQ(store->ReadProgress(*merge, 0)->partial, "done");
  EXPECT_EQ(PostgresServer::Get().Script("SELECT stored_bytes FROM tenants WHERE tenant='other'"),
            "5");
}

}  // namespace
}  // namespace valuescope::store
