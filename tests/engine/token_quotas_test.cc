#include "engine/token_quotas.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "base/error.h"

namespace valuescope::engine {
namespace {

class TokenQuotasTest : public testing::Test {
 protected:
  TokenQuotasTest() { Allow(600); }  // ten a second

  void Allow(int64_t a_minute) {
    TenantPolicies policies;
    policies.named["lab"].tokens_per_minute = a_minute;
    tenants_.Set(std::move(policies));
  }
  // A request that ran.
  void Run(int64_t prompt, int64_t generated) {
    const auto charge = quotas_.Take("lab", prompt);
    charge->Begin();
    charge->Generated(generated);
  }
  // What a refusal says that has to pass; nothing where a call may begin.
  absl::Duration Wait() {
    const absl::Status status = quotas_.Check("lab");
    if (status.ok()) return absl::ZeroDuration();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    const ErrorDetails details = DetailsOf(status);
    EXPECT_EQ(details.reason, "TOKEN_QUOTA");
    return details.retry_after.value_or(absl::ZeroDuration());
  }

  static constexpr absl::Duration kMayBegin = absl::ZeroDuration();
  FakeClock clock_;
  TenantPolicySource tenants_;
  TokenQuotas quotas_{&tenants_, &clock_};
};

TEST_F(TokenQuotasTest, WhatAMinuteBringsMayBeUsedAtOnce) {
  Run(200, 100);
  EXPECT_EQ(Wait(), kMayBegin);
  Run(200, 100);
  EXPECT_EQ(Wait(), absl::Milliseconds(100));
}

TEST_F(TokenQuotasTest, WhoComesBackAfterTheTimeItWasToldIsLetIn) {
  Run(300, 489);  // 189 more than there were
  const absl::Duration wait = Wait();
  EXPECT_EQ(wait, absl::Seconds(19));
  clock_.Advance(wait - absl::Milliseconds(1));
  EXPECT_EQ(Wait(), absl::Milliseconds(1));
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_EQ(Wait(), kMayBegin);
}

TEST_F(TokenQuotasTest, ACallThatBeganGoesOnHoweverManyRequestsItHasAndAllAreOwed) {
  for (int i = 0; i < 20; ++i) Run(100, 0);
  EXPECT_EQ(Wait(), absl::Milliseconds(140'100));
}

TEST_F(TokenQuotasTest, WhatDidNotBeginIsGivenBack) {
  {
    const auto waiting = quotas_.Take("lab", 600);
    EXPECT_EQ(Wait(), absl::Milliseconds(100));
  }
  EXPECT_EQ(Wait(), kMayBegin);
  Run(599, 0);
  EXPECT_EQ(Wait(), kMayBegin);
}

TEST_F(TokenQuotasTest, TimeWithoutRequestsBringsNoMoreThanAMinutes) {
  clock_.Advance(absl::Hours(5));
  Run(659, 0);
  EXPECT_EQ(Wait(), absl::Seconds(6));
}

TEST_F(TokenQuotasTest, OthersAreNotBounded) {
  Run(600, 0);
  EXPECT_TRUE(quotas_.Check("office").ok());
  EXPECT_EQ(quotas_.Take("office", 1'000'000), nullptr);
}

TEST_F(TokenQuotasTest, AChangedBoundHoldsAtOnce) {
  Run(699, 0);
  EXPECT_EQ(Wait(), absl::Seconds(10));
  Allow(6000);
  EXPECT_EQ(Wait(), absl::Seconds(1));
  Allow(0);
  EXPECT_EQ(Wait(), kMayBegin);
  EXPECT_EQ(quotas_.Take("lab", 1000), nullptr);
  Allow(60);
  Run(119, 0);
  EXPECT_EQ(Wait(), absl::Minutes(1));
}

}  // namespace
}  // namespace valuescope::engine
