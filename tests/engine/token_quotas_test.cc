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
  absl::Status Run(int64_t prompt, int64_t generated) {
    auto charge = quotas_.Take("lab", prompt);
    if (!charge.ok()) return charge.status();
    (*charge)->Begin();
    (*charge)->Generated(generated);
    return absl::OkStatus();
  }
  // What a refusal says that has to pass.
  absl::Duration Wait(int64_t prompt) {
    const absl::Status status = Run(prompt, 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    const ErrorDetails details = DetailsOf(status);
    EXPECT_EQ(details.reason, "TOKEN_QUOTA");
    return details.retry_after.value_or(absl::ZeroDuration());
  }

  FakeClock clock_;
  TenantPolicySource tenants_;
  TokenQuotas quotas_{&tenants_, &clock_};
};

TEST_F(TokenQuotasTest, WhatAMinuteBringsMayBeUsedAtOnce) {
  EXPECT_TRUE(Run(200, 100).ok());
  EXPECT_TRUE(Run(200, 100).ok());
  EXPECT_EQ(Wait(1), absl::Milliseconds(100));
}

TEST_F(TokenQuotasTest, WhoComesBackAfterTheTimeItWasToldIsLetIn) {
  EXPECT_TRUE(Run(300, 290).ok());
  const absl::Duration wait = Wait(200);
  EXPECT_EQ(wait, absl::Seconds(19));
  clock_.Advance(wait - absl::Milliseconds(1));
  EXPECT_LE(Wait(200), absl::Milliseconds(2));
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_TRUE(Run(200, 0).ok());
}

TEST_F(TokenQuotasTest, WhatRunsGoesOnAndIsOwed) {
  EXPECT_TRUE(Run(10, 1190).ok());
  EXPECT_EQ(Wait(100), absl::Seconds(70));
}

TEST_F(TokenQuotasTest, APromptThatAMinuteDoesNotHoldWaitsForAFullBucket) {
  EXPECT_TRUE(Run(1200, 0).ok());
  EXPECT_EQ(Wait(1200), absl::Minutes(2));
  clock_.Advance(absl::Minutes(2));
  EXPECT_TRUE(Run(1200, 0).ok());
}

TEST_F(TokenQuotasTest, WhatDidNotBeginIsGivenBack) {
  {
    auto waiting = quotas_.Take("lab", 600);
    ASSERT_TRUE(waiting.ok());
    EXPECT_EQ(Wait(600), absl::Minutes(1));
  }
  EXPECT_TRUE(Run(600, 0).ok());
}

TEST_F(TokenQuotasTest, TimeWithoutRequestsBringsNoMoreThanAMinutes) {
  clock_.Advance(absl::Hours(5));
  EXPECT_TRUE(Run(600, 0).ok());
  EXPECT_EQ(Wait(60), absl::Seconds(6));
}

TEST_F(TokenQuotasTest, OthersAreNotBounded) {
  EXPECT_TRUE(Run(600, 0).ok());
  const auto charge = quotas_.Take("office", 1'000'000);
  ASSERT_TRUE(charge.ok());
  EXPECT_EQ(*charge, nullptr);
}

TEST_F(TokenQuotasTest, AChangedBoundHoldsAtOnce) {
  EXPECT_TRUE(Run(600, 0).ok());
  Allow(6000);
  EXPECT_EQ(Wait(100), absl::Seconds(1));
  Allow(0);
  EXPECT_EQ(*quotas_.Take("lab", 1000), nullptr);
  Allow(60);
  EXPECT_TRUE(Run(60, 0).ok());
  EXPECT_EQ(Wait(60), absl::Minutes(1));
}

}  // namespace
}  // namespace valuescope::engine
