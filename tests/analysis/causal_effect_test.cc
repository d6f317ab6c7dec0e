#include "analysis/causal_effect.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace valuescope::analysis {
namespace {

TEST(EffectOf, IsThatOfThePairsAndNotOfTheTwoMeans) {
  // Responses differ by tens, the change does 1, 2 and 3.
  const std::vector<double> unchanged = {10, 20, 30}, changed = {11, 22, 33};
  const PairedEffect effect = EffectOf(unchanged, changed);
  EXPECT_DOUBLE_EQ(effect.mean, 2);
  EXPECT_DOUBLE_EQ(effect.standard_error.value(), 1 / std::sqrt(3.0));
  EXPECT_FALSE(effect.WithinNoise());
  EXPECT_TRUE(EffectOf(unchanged, std::vector<double>{11, 19, 31}).WithinNoise());
}

TEST(EffectOf, OfOneResponseHasNoErrorAndIsNeverBeyondNoise) {
  const PairedEffect effect = EffectOf(std::vector<double>{1}, std::vector<double>{5});
  EXPECT_DOUBLE_EQ(effect.mean, 4);
  EXPECT_FALSE(effect.standard_error.has_value());
  EXPECT_TRUE(effect.WithinNoise());
}

TEST(EffectOf, OfAChangeThatChangesNothingIsWithinNoise) {
  const std::vector<double> same = {1, 2, 3};
  EXPECT_EQ(EffectOf(same, same).mean, 0);
  EXPECT_TRUE(EffectOf(same, same).WithinNoise());
}

TEST(Shares, CountTheEffectItselfAndTies) {
  const std::vector<double> effects = {-3, -1, 0, 1, 2};
  EXPECT_DOUBLE_EQ(ShareAsLarge(2, effects).value(), 3.0 / 6);
  EXPECT_DOUBLE_EQ(ShareAsLarge(-2, effects).value(), 3.0 / 6);
  EXPECT_DOUBLE_EQ(ShareAsLarge(9, effects).value(), 1.0 / 6);
  EXPECT_DOUBLE_EQ(ShareAsLarge(0, effects).value(), 1);
  EXPECT_DOUBLE_EQ(ShareAsSmall(1, effects).value(), 4.0 / 6);
  EXPECT_DOUBLE_EQ(ShareAsSmall(0, effects).value(), 2.0 / 6);
  EXPECT_FALSE(ShareAsLarge(1, {}).has_value());
  EXPECT_FALSE(ShareAsSmall(1, {}).has_value());
}

}  // namespace
}  // namespace valuescope::analysis
