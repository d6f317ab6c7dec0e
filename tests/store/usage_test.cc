// What tenants used, in every database.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "store/store.h"
#include "tests/store/any_work.h"
#include "tests/store/store_under_test.h"

namespace valuescope::store {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class UsageTest : public testing::TestWithParam<Database> {
 protected:
  void SetUp() override {
    // To the begin of an hour.
    database_->Advance(absl::Hours(1) - (database_->Now() - HourOf(database_->Now())));
    Open();
  }

  void Open() {
    store_.reset();
    auto opened = database_->Open({});
    ASSERT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
  }

  static absl::Time HourOf(absl::Time time) {
    return absl::UnixEpoch() + absl::Floor(time - absl::UnixEpoch(), absl::Hours(1));
  }

  void Add(UsageByTenant usage) {
    const absl::Status added =
        store_->AddUsage({.writer = "here", .number = ++number_, .usage = std::move(usage)});
    ASSERT_TRUE(added.ok()) << added;
  }

  std::vector<TenantUsage> Query(const UsageQuery& query) {
    auto usage = store_->QueryUsage(query);
    EXPECT_TRUE(usage.ok()) << usage.status();
    return usage.ok() ? *std::move(usage) : std::vector<TenantUsage>();
  }

  int64_t number_ = 0;
  std::unique_ptr<DatabaseUnderTest> database_ = MakeDatabase(GetParam());
  std::unique_ptr<Store> store_;
};

INSTANTIATE_TEST_SUITE_P(Databases, UsageTest, testing::ValuesIn(kDatabases), NameOfDatabase);

TEST_P(UsageTest, WhatSeveralServersAddIsOneSumThatOutlivesThem) {
  const absl::Time hour = database_->Now();
  Add({{"b", {.calls = 1, .prompt_tokens = 10, .generated_tokens = 3}}, {"a", {.calls = 2}}});
  ASSERT_TRUE(store_
                  ->AddUsage({.writer = "there",
                              .number = 1,
                              .usage = {{"b", {.calls = 4, .generated_tokens = 1}}}})
                  .ok());
  Open();
  const absl::Time start = hour - absl::Hours(24), end = hour + absl::Hours(1);
  EXPECT_THAT(Query({}),
              ElementsAre(TenantUsage{"a", start, end, {.calls = 2}, absl::ZeroDuration()},
                          TenantUsage{"b",
                                      start,
                                      end,
                                      {.calls = 5, .prompt_tokens = 10, .generated_tokens = 4},
                                      absl::ZeroDuration()}));
  EXPECT_THAT(Query({.tenant = "a"}),
              ElementsAre(TenantUsage{"a", start, end, {.calls = 2}, absl::ZeroDuration()}));
  EXPECT_THAT(Query({.tenant = "c"}), IsEmpty());
}

TEST_P(UsageTest, ABatchThatIsSentAgainCountsOnce) {
  const UsageBatch batch{.writer = "here", .number = 7, .usage = {{"a", {.calls = 1}}}};
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(store_->AddUsage(batch).ok());
  ASSERT_TRUE(store_->AddUsage({.writer = "here", .number = 6, .usage = batch.usage}).ok());
  EXPECT_EQ(Query({})[0].counts.calls, 1);
  ASSERT_TRUE(store_->AddUsage({.writer = "here", .number = 8, .usage = batch.usage}).ok());
  EXPECT_EQ(Query({})[0].counts.calls, 2);
}

TEST_P(UsageTest, EachHourIsToldByItselfInTheOrderOfTimeAndTenant) {
  const absl::Time first = database_->Now();
  Add({{"b", {.calls = 1}}, {"a", {.calls = 2}}});
  database_->Advance(absl::Minutes(59));
  Add({{"a", {.calls = 4}}});
  database_->Advance(absl::Minutes(1));
  Add({{"a", {.calls = 8}}});
  const absl::Duration hour = absl::Hours(1), none = absl::ZeroDuration();
  EXPECT_THAT(Query({.by_hour = true}),
              ElementsAre(TenantUsage{"a", first, first + hour, {.calls = 6}, none},
                          TenantUsage{"b", first, first + hour, {.calls = 1}, none},
                          TenantUsage{"a", first + hour, first + 2 * hour, {.calls = 8}, none}));
}

TEST_P(UsageTest, AQueryIsAboutWholeHours) {
  const absl::Time first = database_->Now();
  for (int i = 0; i < 4; ++i) {
    Add({{"a", {.calls = int64_t{1} << (4 * i)}}});
    database_->Advance(absl::Hours(1));
  }
  const auto calls = [&](absl::Duration start, absl::Duration end) {
    const auto usage = Query({.start = first + start, .end = first + end});
    return usage.empty() ? 0 : usage[0].counts.calls;
  };
  EXPECT_EQ(calls(absl::Minutes(90), absl::Minutes(150)), 0x110);
  EXPECT_EQ(calls(absl::Hours(1), absl::Hours(2)), 0x110);
  EXPECT_EQ(calls(absl::Minutes(61), absl::Minutes(62)), 0x10);
  EXPECT_EQ(calls(-absl::Hours(5), -absl::Minutes(1)), 0);
  EXPECT_EQ(Query({.start = first + absl::Minutes(61), .end = first + absl::Minutes(62)})[0].end,
            first + absl::Hours(2));
}

TEST_P(UsageTest, TimesThatAreNoneAreRefused) {
  const absl::Time now = database_->Now();
  for (const UsageQuery& query :
       {UsageQuery{.start = now, .end = now}, UsageQuery{.start = now + absl::Seconds(1)},
        UsageQuery{.start = now - kLongestUsageQuery - absl::Seconds(1), .end = now},
        UsageQuery{.start = now - kLongestUsageQuery - absl::Minutes(2)},
        UsageQuery{.start = now - kLongestUsageQueryByHour - absl::Minutes(2), .by_hour = true}}) {
    const absl::Status refused = store_->QueryUsage(query).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DetailsOf(refused).field, query.end ? "end_time" : "start_time");
  }
  // By a clock that is a little behind.
  EXPECT_TRUE(store_->QueryUsage({.start = now - kLongestUsageQuery - absl::Seconds(50)}).ok());
}

TEST_P(UsageTest, WhatWorkersSpendOnJobsCountsForTheirTenant) {
  NewJob job;
  job.tenant = "lab";
  job.kind = "count";
  job.spec = "{}";
  job.num_shards = 2;
  ASSERT_TRUE(store_->CreateJob(job, {}).ok());
  const auto take = [&] {
    Lease lease = **store_->LeaseWork(kAnyWork);
    lease.worked = absl::Milliseconds(1500);
    return lease;
  };
  const Lease first = take();
  ASSERT_TRUE(store_->CommitProgress(first, {.partial = "p", .cursor = ""}).ok());
  ASSERT_TRUE(store_->CompleteShard(first, {.partial = "p", .cursor = ""}).ok());
  ASSERT_TRUE(store_->FailShard(take(), absl::InternalError("of the machinery")).ok());
  const auto usage = Query({});
  ASSERT_EQ(usage.size(), 1u);
  EXPECT_EQ(usage[0].tenant, "lab");
  EXPECT_EQ(usage[0].job_time, absl::Milliseconds(4500)) << "whatever the tenant's weight";
  Lease lost = first;
  lost.token = "lost";
  EXPECT_FALSE(store_->CompleteShard(lost, {.partial = "p", .cursor = ""}).ok());
  EXPECT_EQ(Query({})[0].job_time, absl::Milliseconds(4500));
}

TEST_P(UsageTest, HoursGoWhenTheirTimeIsOver) {
  for (int i = 0; i < 3; ++i) {
    Add({{"a", {.calls = 1}}, {"b", {.calls = 1}}});
    database_->Advance(absl::Hours(1));
  }
  const Retention kept{.usage = absl::Hours(2)};
  EXPECT_EQ(store_->Expire({}, 100)->usage, 0) << "for ever";
  const auto first = store_->Expire(kept, 1);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->usage, 1);
  EXPECT_TRUE(first->more);
  EXPECT_EQ(store_->Expire(kept, 100)->usage, 1);
  EXPECT_EQ(store_->Expire(kept, 100)->usage, 0);
  EXPECT_EQ(Query({.tenant = "a"})[0].counts.calls, 2);
}

}  // namespace
}  // namespace valuescope::store
