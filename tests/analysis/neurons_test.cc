// Geometric classes and direct contributions of neurons.
#include <cmath>
#include <numbers>
#include <random>

#include "analysis/inner_product.h"
#include "analysis/neuron_attribution.h"
#include "analysis/neuron_geometry.h"
#include "base/error.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

constexpr std::array<const char*, kNumNeuronClasses> kClassNames = {
    "NONE", "UNCLASSIFIED", "SHARED", "INTRINSIC", "PROMPTED", "SHARED_NEGATIVE"};

const std::vector<float> kSharedAxis = {1, 0, 0};
const std::vector<float> kDifferenceAxis = {0, 1, 0};

// Neurons whose p_i have the given lengths and angles (degrees from u_shared towards u_diff), with
// a third coordinate of `beside` that no axis sees.
std::vector<float> NeuronsAt(const std::vector<double>& lengths, const std::vector<double>& angles,
                             double beside = 0) {
  std::vector<float> columns;
  for (size_t i = 0; i < angles.size(); ++i) {
    columns.push_back(lengths[i] * std::cos(angles[i] * std::numbers::pi / 180));
  }
  for (size_t i = 0; i < angles.size(); ++i) {
    columns.push_back(lengths[i] * std::sin(angles[i] * std::numbers::pi / 180));
  }
  columns.insert(columns.end(), angles.size(), beside);
  return columns;
}

NeuronGeometry MustClassify(const std::vector<float>& columns,
                            const NeuronGeometryOptions& options) {
  auto result = ClassifyNeurons({columns, 3, static_cast<int64_t>(columns.size() / 3)},
                                {.shared = kSharedAxis, .difference = kDifferenceAxis}, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

int64_t Count(const NeuronGeometry& geometry, NeuronClass c) {
  return geometry.counts[static_cast<int>(c)];
}

TEST(ClassifyNeurons, EqualsNumpy) {
  for (const nlohmann::json& expected : ExpectedValues()["geometry"]) {
    const auto weights = expected["weights"].get<std::vector<float>>();
    const auto shared = expected["shared"].get<std::vector<float>>();
    const auto difference = expected["difference"].get<std::vector<float>>();
    const auto result = ClassifyNeurons({weights, expected["hidden"], expected["intermediate"]},
                                        {shared, difference},
                                        {.top_percent = 50,
                                         .admit_negative_shared = expected["signed"],
                                         .rank_by_relative_norm = expected["relative"]});
    ASSERT_TRUE(result.ok()) << result.status();
    ExpectAllNear(result->scores, expected["scores"].get<std::vector<double>>(), 1e-10);
    ExpectAllNear(result->angles, expected["angles"].get<std::vector<double>>(), 1e-5);
    EXPECT_EQ(result->members, expected["members"].get<std::vector<int32_t>>());
    for (size_t i = 0; i < result->classes.size(); ++i) {
      EXPECT_EQ(kClassNames[static_cast<int>(result->classes[i])], expected["classes"][i]) << i;
    }
  }
}

TEST(ClassifyNeurons, TheNearestAxisWithinTheAngleGivesTheClass) {
  const std::vector<double> angles = {0, 29, 31, 61, 90, 119, 121, 180, -29, -61, -90, -150};
  const std::vector<float> columns = NeuronsAt(std::vector<double>(angles.size(), 2.0), angles, 7);
  using enum NeuronClass;
  EXPECT_EQ(MustClassify(columns, {.top_percent = 100}).classes,
            (std::vector<NeuronClass>{kShared, kShared, kUnclassified, kIntrinsic, kIntrinsic,
                                      kIntrinsic, kUnclassified, kUnclassified, kShared, kPrompted,
                                      kPrompted, kUnclassified}));
  const NeuronGeometry with_negative =
      MustClassify(columns, {.top_percent = 100, .admit_negative_shared = true});
  EXPECT_EQ(with_negative.classes[7], kSharedNegative);
  EXPECT_NEAR(with_negative.angles[7], 0, 1e-5);
  EXPECT_NEAR(MustClassify(columns, {.top_percent = 100}).angles[7], 90, 1e-5);
}

TEST(ClassifyNeurons, ExactlyAtTheLargestAngleIsUnclassified) {
  // 45 degrees is exact in floating point: equal coordinates.
  const std::vector<float> columns = {1, 1, 0};
  EXPECT_EQ(MustClassify(columns, {.top_percent = 100, .max_angle_degrees = 45}).classes[0],
            NeuronClass::kUnclassified);
}

TEST(ClassifyNeurons, KeepsTheTopPercentTiesByIndex) {
  const std::vector<float> columns =
      NeuronsAt({1, 3, 2, 3, 3, 1, 1, 1, 1, 1}, std::vector<double>(10, 0.0));
  EXPECT_EQ(MustClassify(columns, {.top_percent = 20}).members, (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(MustClassify(columns, {.top_percent = 50}).members,
            (std::vector<int32_t>{1, 3, 4, 2, 0}));
  const NeuronGeometry least = MustClassify(columns, {.top_percent = 0.1});
  EXPECT_EQ(least.members, (std::vector<int32_t>{1}));
  EXPECT_EQ(Count(least, NeuronClass::kNone), 9);
  EXPECT_EQ(least.classes[3], NeuronClass::kNone);
}

TEST(ClassifyNeurons, APercentageOfAHundredNeuronsIsThatManyNeurons) {
  const std::vector<float> columns =
      NeuronsAt(std::vector<double>(100, 1.0), std::vector<double>(100, 0.0));
  for (int percent = 1; percent <= 100; ++percent) {
    EXPECT_EQ(MustClassify(columns, {.top_percent = static_cast<double>(percent)}).members.size(),
              percent);
  }
}

TEST(ClassifyNeurons, RelativeRankingPrefersDirectionOverLength) {
  // Neuron 0 is long but mostly beside the plane, neuron 1 short and within it.
  const std::vector<float> columns = {3, 1, 0, 0, 10, 0};
  EXPECT_EQ(MustClassify(columns, {.top_percent = 50}).members[0], 0);
  const NeuronGeometry relative =
      MustClassify(columns, {.top_percent = 50, .rank_by_relative_norm = true});
  EXPECT_EQ(relative.members[0], 1);
  EXPECT_DOUBLE_EQ(relative.scores[1], 1.0);
  EXPECT_DOUBLE_EQ(relative.projection_norms[0], 3.0);
}

TEST(ClassifyNeurons, LengthsAndSlantOfTheAxesDoNotMatter) {
  const std::vector<float> columns = NeuronsAt({1, 2, 3, 4}, {10, 80, 200, 280}, 1);
  const std::vector<float> long_shared = {5, 0, 0};
  const std::vector<float> slanted = {9, 3, 0};
  const auto result =
      ClassifyNeurons({columns, 3, 4}, {long_shared, slanted}, {.top_percent = 100});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->classes, MustClassify(columns, {.top_percent = 100}).classes);
}

TEST(ClassifyNeurons, RotationLeavesClassesUnchanged) {
  const int64_t hidden = 8, intermediate = 50;
  const std::vector<float> neurons = RandomNormal(intermediate * hidden, 11);  // row = neuron
  const auto columns_of = [&](const std::vector<float>& rows) {
    std::vector<float> columns(rows.size());
    for (int64_t i = 0; i < intermediate; ++i) {
      for (int64_t h = 0; h < hidden; ++h) columns[h * intermediate + i] = rows[i * hidden + h];
    }
    return columns;
  };
  const std::vector<float> shared = RandomNormal(hidden, 12);
  const std::vector<float> difference = RandomNormal(hidden, 13);
  const std::vector<float> columns = columns_of(neurons);
  const std::vector<float> rotated = columns_of(ToFloats(Rotate(neurons, hidden)));
  const std::vector<float> rotated_shared = ToFloats(Rotate(shared, hidden));
  const std::vector<float> rotated_difference = ToFloats(Rotate(difference, hidden));
  const auto a =
      ClassifyNeurons({columns, hidden, intermediate}, {shared, difference}, {.top_percent = 60});
  const auto b = ClassifyNeurons({rotated, hidden, intermediate},
                                 {rotated_shared, rotated_difference}, {.top_percent = 60});
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->classes, b->classes);
  EXPECT_GT(Count(*a, NeuronClass::kShared), 0);
}

TEST(ClassifyNeurons, RandomDirectionsFollowTheNull) {
  const int64_t hidden = 16, intermediate = 6000;
  const std::vector<float> columns = RandomNormal(hidden * intermediate, 21);
  const std::vector<float> shared = RandomNormal(hidden, 22);
  const std::vector<float> difference = RandomNormal(hidden, 23);
  for (const bool negative : {false, true}) {
    const auto result = ClassifyNeurons(
        {columns, hidden, intermediate}, {shared, difference},
        {.top_percent = 100, .admit_negative_shared = negative, .rank_by_relative_norm = true});
    ASSERT_TRUE(result.ok());
    EXPECT_DOUBLE_EQ(result->expected_counts[static_cast<int>(NeuronClass::kShared)], 1000);
    EXPECT_NEAR(result->expected_counts[static_cast<int>(NeuronClass::kUnclassified)],
                negative ? 2000 : 3000, 1e-9);
    for (int c = 0; c < kNumNeuronClasses; ++c) {
      // Five standard deviations of a binomial count.
      const double p = result->expected_counts[c] / intermediate;
      EXPECT_NEAR(static_cast<double>(result->counts[c]), result->expected_counts[c],
                  5 * std::sqrt(intermediate * p * (1 - p)) + 1e-9);
    }
    const double threshold = std::sqrt(IsotropicQuantile(0.1, hidden));
    const auto above = std::count_if(result->scores.begin(), result->scores.end(),
                                     [&](double score) { return score > threshold; });
    EXPECT_NEAR(static_cast<double>(above), 600, 5 * std::sqrt(600 * 0.9));
  }
}

TEST(IsotropicNull, QuantileInvertsExceedance) {
  EXPECT_DOUBLE_EQ(IsotropicExceedance(0.19, 3), 0.9);
  EXPECT_DOUBLE_EQ(IsotropicExceedance(0.25, 4), 0.75);
  for (const int64_t width : {3, 4, 576, 8192}) {
    for (const double p : {1.0, 0.5, 0.01}) {
      EXPECT_NEAR(IsotropicExceedance(IsotropicQuantile(p, width), width) / p, 1, 1e-9);
    }
  }
}

TEST(ClassifyNeurons, BadInputIsRefusedByName) {
  const std::vector<float> columns = {1, 0, 0};
  const std::vector<float> shorter = {1, 0};
  const std::vector<float> zero = {0, 0, 0};
  const std::vector<float> infinite = {1, INFINITY, 0};
  const auto error_field = [](const WriteDirections& weights, const ValueAxes& axes,
                              const NeuronGeometryOptions& options = {}) {
    return DetailsOf(ClassifyNeurons(weights, axes, options).status()).field;
  };
  const ValueAxes axes = {kSharedAxis, kDifferenceAxis};
  EXPECT_EQ(error_field({columns, 3, 2}, axes), "weights");
  EXPECT_EQ(error_field({columns, int64_t{1} << 40, int64_t{1} << 40}, axes), "weights");
  EXPECT_EQ(error_field({infinite, 3, 1}, axes), "weights");
  EXPECT_EQ(error_field({columns, 3, 1}, {shorter, kDifferenceAxis}), "axes.shared");
  EXPECT_EQ(error_field({columns, 3, 1}, {kSharedAxis, zero}), "axes.difference");
  EXPECT_EQ(error_field({columns, 3, 1}, {kSharedAxis, kSharedAxis}), "axes.difference");
  EXPECT_EQ(error_field({columns, 3, 1}, axes, {.top_percent = 0}), "top_percent");
  EXPECT_EQ(error_field({columns, 3, 1}, axes, {.top_percent = NAN}), "top_percent");
  EXPECT_EQ(error_field({columns, 3, 1}, axes, {.max_angle_degrees = 46}), "max_angle");
}

TEST(DirectContribution, ScoresAreTheDifferenceWrittenAlongTheVector) {
  const std::vector<float> columns = {1, 0, 2,
                                      0, 3, -1};  // w_0 = (1, 0), w_1 = (0, 3), w_2 = (2, -1)
  const std::vector<float> v = {2, 1};
  const std::vector<double> expressing = {1, 0.5, -1};
  const std::vector<double> non_expressing = {0.5, 1.5, -2};
  const auto result = ComputeDirectContribution({expressing, non_expressing}, {columns, 2, 3}, v);
  ASSERT_TRUE(result.ok());
  ExpectAllNear(result->scores, std::vector<double>{0.5 * 2 / 5, -1.0 * 3 / 5, 1.0 * 3 / 5}, 1e-15);
  EXPECT_NEAR(result->score_sum, 0.2, 1e-15);
  EXPECT_NEAR(result->score_min, -0.6, 1e-15);
  EXPECT_NEAR(result->score_max, 0.6, 1e-15);
}

TEST(DirectContribution, SharesOfAResidualStreamSumToOne) {
  // Two blocks without attention: x = embedding + W_0 a_0 + W_1 a_1. With v the difference in means
  // of x, the embedding's share and both blocks' sums of scores make 1.
  const int64_t hidden = 6, intermediate = 10;
  const std::vector<float> weights[] = {RandomNormal(hidden * intermediate, 31),
                                        RandomNormal(hidden * intermediate, 32)};
  const std::vector<float> embedding_delta = RandomNormal(hidden, 33);
  std::vector<double> v(embedding_delta.begin(), embedding_delta.end());
  std::vector<std::vector<double>> on, off;
  for (int block : {0, 1}) {
    const std::vector<float> a = RandomNormal(intermediate, 40 + block);
    const std::vector<float> b = RandomNormal(intermediate, 50 + block);
    on.emplace_back(a.begin(), a.end());
    off.emplace_back(b.begin(), b.end());
    for (int64_t h = 0; h < hidden; ++h) {
      for (int64_t i = 0; i < intermediate; ++i) {
        v[h] += weights[block][h * intermediate + i] * (on[block][i] - off[block][i]);
      }
    }
  }
  double shares = InnerProduct(embedding_delta, v) / InnerProduct(v, v);
  for (int block : {0, 1}) {
    const auto result = ComputeDirectContribution(
        {on[block], off[block]}, {weights[block], hidden, intermediate}, ToFloats(v));
    ASSERT_TRUE(result.ok());
    shares += result->score_sum;
  }
  EXPECT_NEAR(shares, 1.0, 1e-6);
}

TEST(DirectContribution, SwappingLabelsNegatesEveryScore) {
  const std::vector<float> columns = RandomNormal(12, 61);
  const std::vector<float> v = RandomNormal(3, 62);
  const std::vector<double> a = {1, 2, 3, 4};
  const std::vector<double> b = {0, 5, -1, 2};
  const auto forward = ComputeDirectContribution({a, b}, {columns, 3, 4}, v);
  const auto swapped = ComputeDirectContribution({b, a}, {columns, 3, 4}, v);
  ASSERT_TRUE(forward.ok() && swapped.ok());
  for (int i = 0; i < 4; ++i) EXPECT_EQ(forward->scores[i], -swapped->scores[i]);
}

TEST(DirectContribution, BadInputIsRefusedByName) {
  const std::vector<float> columns = {1, 2};
  const std::vector<double> mean = {1};
  const std::vector<double> two = {1, 2};
  const std::vector<double> bad = {NAN};
  const std::vector<float> v = {1, 0};
  const std::vector<float> zero = {0, 0};
  const std::vector<float> shorter = {1};
  const auto error_field = [&](const NeuronActivationMeans& means, std::span<const float> vector) {
    return DetailsOf(ComputeDirectContribution(means, {columns, 2, 1}, vector).status()).field;
  };
  EXPECT_EQ(error_field({two, mean}, v), "means.expressing");
  EXPECT_EQ(error_field({mean, bad}, v), "means.non_expressing");
  EXPECT_EQ(error_field({mean, mean}, zero), "vector");
  EXPECT_EQ(error_field({mean, mean}, shorter), "vector");
}

TEST(RankNeurons, LargestMagnitudeFirstTiesByLayerThenIndex) {
  const std::vector<double> later = {0.5, -3, 1};
  const std::vector<double> earlier = {1, 0, -1};
  const std::vector<LayerScores> layers = {{7, later}, {2, earlier}};
  std::vector<std::pair<int, int>> order;
  for (const RankedNeuron& neuron : RankNeurons(layers, 5)) {
    order.emplace_back(neuron.layer, neuron.index);
  }
  EXPECT_EQ(order, (std::vector<std::pair<int, int>>{{7, 1}, {2, 0}, {2, 2}, {7, 2}, {7, 0}}));
  EXPECT_EQ(RankNeurons(layers, 100).size(), 6u);
  EXPECT_EQ(RankNeurons(layers, 1)[0].score, -3);
  EXPECT_TRUE(RankNeurons(layers, 0).empty());
}

}  // namespace
}  // namespace valuescope::analysis
