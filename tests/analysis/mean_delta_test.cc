#include "analysis/mean_delta.h"

#include <cmath>

#include "analysis/inner_product.h"
#include "base/error.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

const std::vector<float> kZero = {0, 0};
const std::vector<float> kRight = {1, 0};
const std::vector<float> kFarUp = {0, 3};

MeanDelta MustCompute(const std::vector<VectorPair>& pairs, const MeanDeltaOptions& options = {}) {
  auto result = ComputeMeanDelta(pairs, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

TEST(MeanDelta, EqualsNumpy) {
  for (const nlohmann::json& expected : ExpectedValues()["mean_deltas"]) {
    const auto intrinsic = expected["intrinsic"].get<std::vector<float>>();
    const auto prompted = expected["prompted"].get<std::vector<float>>();
    const size_t width = expected["width"];
    std::vector<VectorPair> pairs;
    for (size_t s = 0; s < expected["num_values"]; ++s) {
      pairs.push_back({std::span(intrinsic).subspan(s * width, width),
                       std::span(prompted).subspan(s * width, width)});
    }
    const MeanDelta result = MustCompute(pairs, {.unit_deltas = expected["unit"]});
    ExpectAllNear(result.direction, expected["direction"].get<std::vector<double>>(), 1e-6);
    EXPECT_NEAR(result.norm, expected["norm"], 1e-12);
    EXPECT_NEAR(*result.explained_variance, expected["explained_variance"], 1e-12);
    EXPECT_NEAR(*result.mean_pairwise_cosine, expected["mean_pairwise_cosine"], 1e-12);
    EXPECT_TRUE(result.zero_deltas.empty());
  }
}

// Deltas (1, 0) and (0, 3): their mean (1/2, 3/2), of unit deltas (1/2, 1/2).
TEST(MeanDelta, UnitDeltasCountAlike) {
  const std::vector<VectorPair> pairs = {{kZero, kRight}, {kZero, kFarUp}};
  const MeanDelta whole = MustCompute(pairs);
  EXPECT_NEAR(whole.norm, std::sqrt(2.5), 1e-12);
  EXPECT_NEAR(*whole.explained_variance, (0.1 + 9 * 0.9) / 10, 1e-12);
  const MeanDelta unit = MustCompute(pairs, {.unit_deltas = true});
  EXPECT_NEAR(unit.norm, std::sqrt(0.5), 1e-12);
  EXPECT_NEAR(*unit.explained_variance, 0.5, 1e-12);
  EXPECT_NEAR(*unit.mean_pairwise_cosine, 0, 1e-12);
}

// (1, 0), 0 and (0, 3) have the mean (1/3, 1); the two unit deltas (1/2, 1/2).
TEST(MeanDelta, AZeroDeltaCountsInTheMeanAndHasNoCosines) {
  const std::vector<VectorPair> pairs = {{kZero, kRight}, {kFarUp, kFarUp}, {kZero, kFarUp}};
  const MeanDelta whole = MustCompute(pairs);
  EXPECT_EQ(whole.zero_deltas, std::vector<size_t>{1});
  EXPECT_NEAR(whole.norm, std::sqrt(1.0 / 9 + 1), 1e-12);
  EXPECT_NEAR(*whole.mean_pairwise_cosine, 0, 1e-12);
  const MeanDelta unit = MustCompute(pairs, {.unit_deltas = true});
  EXPECT_EQ(unit.zero_deltas, std::vector<size_t>{1});
  EXPECT_NEAR(unit.norm, std::sqrt(0.5), 1e-12);
}

TEST(MeanDelta, OneDeltaAloneHasNoPairwiseCosine) {
  const MeanDelta result = MustCompute({{kZero, kRight}, {kRight, kRight}});
  EXPECT_FALSE(result.mean_pairwise_cosine.has_value());
  EXPECT_NEAR(*result.explained_variance, 1, 1e-12);
  EXPECT_NEAR(result.norm, 0.5, 1e-12);
}

TEST(MeanDelta, NoDeltasAtAllExplainNothing) {
  for (const bool unit : {false, true}) {
    const MeanDelta result =
        MustCompute({{kRight, kRight}, {kFarUp, kFarUp}}, {.unit_deltas = unit});
    EXPECT_EQ(result.zero_deltas.size(), 2u);
    EXPECT_TRUE(result.direction.empty());
    EXPECT_EQ(result.norm, 0);
    EXPECT_FALSE(result.explained_variance.has_value());
    EXPECT_FALSE(result.mean_pairwise_cosine.has_value());
  }
}

TEST(MeanDelta, DeltasThatCancelHaveNoDirection) {
  const MeanDelta result = MustCompute({{kZero, kRight}, {kRight, kZero}});
  EXPECT_TRUE(result.direction.empty());
  EXPECT_EQ(result.norm, 0);
  EXPECT_FALSE(result.explained_variance.has_value());
  EXPECT_DOUBLE_EQ(*result.mean_pairwise_cosine, -1.0);
}

// Three unit deltas 120 degrees apart cancel but for the rounding of what made them unit.
TEST(MeanDelta, WhatRoundingLeavesOfACancelledMeanIsNoDirection) {
  const float height = std::sqrt(3.0f);
  const std::vector<float> a = {2, 0, 0}, b = {-1, height, 0}, c = {-1, -height, 0},
                           zero = {0, 0, 0};
  const MeanDelta result = MustCompute({{zero, a}, {zero, b}, {zero, c}});
  EXPECT_TRUE(result.direction.empty());
  EXPECT_NEAR(*result.mean_pairwise_cosine, -0.5, 1e-7);
}

TEST(MeanDelta, RotationLeavesItsNumbersUnchanged) {
  const std::vector<float> intrinsic = RandomNormal(4 * 6, 3), prompted = RandomNormal(4 * 6, 4);
  const std::vector<float> turned_intrinsic = ToFloats(Rotate(intrinsic, 6)),
                           turned_prompted = ToFloats(Rotate(prompted, 6));
  const auto pairs_of = [](const std::vector<float>& a, const std::vector<float>& b) {
    std::vector<VectorPair> pairs;
    for (size_t s = 0; s < 4; ++s) {
      pairs.push_back({std::span(a).subspan(6 * s, 6), std::span(b).subspan(6 * s, 6)});
    }
    return pairs;
  };
  const MeanDelta straight = MustCompute(pairs_of(intrinsic, prompted));
  const MeanDelta turned = MustCompute(pairs_of(turned_intrinsic, turned_prompted));
  EXPECT_NEAR(turned.norm, straight.norm, 1e-6);
  EXPECT_NEAR(*turned.explained_variance, *straight.explained_variance, 1e-6);
  EXPECT_NEAR(*turned.mean_pairwise_cosine, *straight.mean_pairwise_cosine, 1e-6);
  ExpectAllNear(turned.direction, Rotate(straight.direction, 6), 1e-6);
}

TEST(MeanDelta, BadInputIsRefusedByName) {
  const std::vector<float> a = {1, 2};
  const std::vector<float> shorter = {1};
  const std::vector<float> none;
  const std::vector<float> infinite = {1, INFINITY};
  const auto error_field = [](const std::vector<VectorPair>& pairs) {
    return DetailsOf(ComputeMeanDelta(pairs).status()).field;
  };
  EXPECT_EQ(error_field({}), "pairs");
  EXPECT_EQ(error_field({{none, none}}), "pairs[0].intrinsic");
  EXPECT_EQ(error_field({{a, a}, {a, shorter}}), "pairs[1].prompted");
  EXPECT_EQ(error_field({{a, a}, {infinite, a}}), "pairs[1].intrinsic");
}

}  // namespace
}  // namespace valuescope::analysis
