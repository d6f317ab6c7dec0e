#include "analysis/principal_direction.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "analysis/inner_product.h"
#include "analysis/largest_eigenvector.h"
#include "base/error.h"
#include "tests/analysis/data_set.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

ValueVectors Computed(const DataSet& data, const PrincipalDirectionOptions& options = {}) {
  auto result = ComputePrincipalDirections(data.Responses(), data.num_layers, data.width, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

// Numbers are float64 but for the vector, which is rounded to float32 at the end.
TEST(PrincipalDirection, EqualsNumpyCenteredAndNot) {
  for (const nlohmann::json& expected : ExpectedValues()["principal_direction"]) {
    const DataSet data = DataSetOf(expected);
    const ValueVectors result =
        Computed(data, {.centered = expected["centered"], .weigh_by_tokens = !data.tokens.empty()});
    const LayerVector& layer = result.layers[0];
    EXPECT_EQ(result.num_pairs, expected["num_pairs"]);
    ExpectAllNear(layer.vector, expected["vector"].get<std::vector<double>>(), 1e-7);
    EXPECT_NEAR(*layer.explained_variance, expected["explained_variance"], 1e-12);
    EXPECT_NEAR(*layer.split_half_cosine, expected["split_half_cosine"], 1e-9);
    EXPECT_DOUBLE_EQ(*layer.auroc, expected["auroc"]);
    EXPECT_NEAR(layer.norm, 1, 1e-12);
    EXPECT_TRUE(layer.settled);
  }
}

// What every pair shares is all that they have here, and what differs is orthogonal to it.
TEST(PrincipalDirection, CenteringRemovesWhatPairsShare) {
  DataSet data;
  data.width = 3;
  for (int q = 0; q < 6; ++q) {
    const double differs = q % 2 == 0 ? 1 : -1;
    data.Append(true, absl::StrCat(q), {5, differs, 7});
    data.Append(false, absl::StrCat(q), {1, 0, 7});
  }
  const LayerVector whole = Computed(data).layers[0];
  ExpectAllNear(whole.vector, std::vector<double>{1, 0, 0}, 1e-7);
  EXPECT_NEAR(*whole.explained_variance, 16.0 / 17, 1e-12);
  const LayerVector centered = Computed(data, {.centered = true}).layers[0];
  EXPECT_NEAR(std::abs(centered.vector[1]), 1, 1e-7);
  EXPECT_NEAR(*centered.explained_variance, 1, 1e-12);
}

TEST(PrincipalDirection, SwappingLabelsNegates) {
  DataSet data = RandomDataSet(9, 4);
  const LayerVector before = Computed(data).layers[0];
  data.labels.flip();
  const LayerVector after = Computed(data).layers[0];
  for (size_t i = 0; i < before.vector.size(); ++i) {
    EXPECT_EQ(after.vector[i], -before.vector[i]);
  }
  EXPECT_DOUBLE_EQ(*after.auroc, *before.auroc);
}

TEST(PrincipalDirection, QueriesWithOneLabelSayNothing) {
  DataSet data = RandomDataSet(8, 4);
  const LayerVector before = Computed(data).layers[0];
  data.Append(true, "alone", {100, -200, 300, 5});
  data.Append(false, "", {-1, 400, 0, 0});
  const ValueVectors after = Computed(data);
  EXPECT_EQ(after.num_pairs, 8);
  EXPECT_EQ(after.layers[0].vector, before.vector);
}

TEST(PrincipalDirection, TooFewPairsAreRefused) {
  DataSet data;
  data.width = 1;
  data.Append(true, "a", {1});
  data.Append(false, "b", {2});
  const auto refused = [&](bool centered) {
    const auto result = ComputePrincipalDirections(data.Responses(), 1, 1, {.centered = centered});
    return DetailsOf(result.status()).reason;
  };
  EXPECT_EQ(refused(false), "TOO_FEW_PAIRS");
  data.Append(false, "a", {0});
  EXPECT_EQ(refused(false), "");
  EXPECT_EQ(refused(true), "TOO_FEW_PAIRS");
  data.Append(true, "b", {5});
  EXPECT_EQ(refused(true), "");
}

TEST(PrincipalDirection, WhatHasNoMeaningOrNoDirectionIsNamed) {
  DataSet data;
  data.width = 1;
  data.Append(true, "a", {1});
  data.Append(false, "a", {1});
  const LayerVector layer = Computed(data).layers[0];
  EXPECT_EQ(layer.vector, std::vector<float>{0});
  EXPECT_EQ(AbsentOf(layer), (std::map<std::string, Absence>{
                                 {"explained_variance", Absence::kZeroVector},
                                 {"relative_norm", Absence::kMethod},
                                 {"debiased_squared_norm", Absence::kMethod},
                                 {"clustered_squared_norm", Absence::kMethod},
                                 {"squared_norm_interval", Absence::kMethod},
                                 {"norm_interval", Absence::kMethod},
                                 {"split_half_cosine", Absence::kFewPairs},
                                 {"reliability", Absence::kFewPairs},
                                 {"auroc", Absence::kFewPairs},
                             }));
  const LayerVector without = Computed(data, {.intervals = false}).layers[0];
  EXPECT_EQ(AbsentOf(without).count("norm_interval"), 0u);
}

// Their mean is not a float64, so that rounding is left of them.
TEST(PrincipalDirection, EqualDifferencesHaveNoCenteredComponent) {
  DataSet data;
  data.width = 2;
  for (int q = 0; q < 7; ++q) {
    data.Append(true, absl::StrCat(q), {0.1, 1.0 / 3});
    data.Append(false, absl::StrCat(q), {0, 0});
  }
  EXPECT_EQ(Computed(data, {.centered = true}).layers[0].vector, (std::vector<float>{0, 0}));
}

TEST(PrincipalDirection, BadInputIsRefusedByName) {
  DataSet data = RandomDataSet(4, 2);
  data.activations[5][1] = NAN;
  const auto result = ComputePrincipalDirections(data.Responses(), 1, data.width, {});
  EXPECT_EQ(DetailsOf(result.status()).field, "responses[5].mean_activations");
  const auto unknown = ComputePrincipalDirections(RandomDataSet(4, 2).Responses(), 1, data.width,
                                                  {.weigh_by_tokens = true});
  EXPECT_EQ(DetailsOf(unknown.status()).field, "responses[0].num_tokens");
}

TEST(PrincipalDirection, StopsWhenCancelled) {
  const DataSet data = RandomDataSet(4, 2);
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(
      ComputePrincipalDirections(data.Responses(), 1, data.width, {}, cancellation).status().code(),
      absl::StatusCode::kCancelled);
}

// A diagonal turned by a reflection: H diag(values) H, H = 1 - 2 n n' / n'n.
std::vector<double> Turned(std::span<const double> x, const std::vector<double>& normal) {
  std::vector<double> out(x.begin(), x.end());
  AddScaled(normal, -2 * InnerProduct(x, normal) / InnerProduct(normal, normal), out);
  return out;
}

TEST(LargestEigenpair, FindsTheFirstOfManyCloseOnesWithinItsBounds) {
  for (const int64_t size : {1, 2, 5, 60, 400, 700}) {
    std::vector<double> values(size), normal(size);
    const std::vector<float> random = RandomNormal(size, 77);
    for (int64_t i = 0; i < size; ++i) {
      values[i] = i == size / 2 ? 1.0 : 0.99 * static_cast<double>(i) / static_cast<double>(size);
      normal[i] = random[i];
    }
    const auto multiply = [&](std::span<const double> x) {
      std::vector<double> y = Turned(x, normal);
      for (int64_t i = 0; i < size; ++i) y[i] *= values[i];
      return Turned(y, normal);
    };
    const auto found = LargestEigenpair(size, multiply, {});
    ASSERT_TRUE(found.ok());
    EXPECT_TRUE(found->settled) << size;
    EXPECT_NEAR(found->value, 1, 1e-12) << size;
    std::vector<double> wanted(size, 0.0);
    wanted[size / 2] = 1;
    EXPECT_NEAR(std::abs(InnerProduct(Turned(wanted, normal), found->vector)), 1, 1e-12) << size;
    std::vector<double> residual = multiply(found->vector);
    AddScaled(found->vector, -found->value, residual);
    EXPECT_LT(Norm(residual), 2e-12) << size;
  }
}

TEST(LargestEigenpair, OfEqualEigenvaluesOneVectorIsGiven) {
  const auto found = LargestEigenpair(
      50, [](std::span<const double> x) { return std::vector<double>(x.begin(), x.end()); }, {});
  ASSERT_TRUE(found.ok());
  EXPECT_TRUE(found->settled);
  EXPECT_NEAR(found->value, 1, 1e-12);
  EXPECT_NEAR(Norm(found->vector), 1, 1e-12);
}

// Eigenvalues 1 - i^2 / 10^9: the first hundreds differ by less than 512 products can tell.
TEST(LargestEigenpair, SaysWhereItCameToNoEnd) {
  constexpr int64_t kSize = 1100;
  const auto found = LargestEigenpair(kSize,
                                      [](std::span<const double> x) {
                                        std::vector<double> y(x.begin(), x.end());
                                        for (int64_t i = 0; i < kSize; ++i)
                                          y[i] *= 1 - static_cast<double>(i * i) * 1e-9;
                                        return y;
                                      },
                                      {});
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->settled);
  EXPECT_NEAR(found->value, 1, 1e-4);
}

}  // namespace
}  // namespace valuescope::analysis
