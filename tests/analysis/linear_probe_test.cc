#include "analysis/linear_probe.h"

#include <cmath>

#include "analysis/inner_product.h"
#include "base/error.h"
#include "tests/analysis/data_set.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

ValueVectors Computed(const DataSet& data, const LinearProbeOptions& options = {}) {
  auto result = ComputeLinearProbes(data.Responses(), data.num_layers, data.width, options);
  EXPECT_TRUE(result.ok()) << result.status();
  return *std::move(result);
}

// Fewer responses than coordinates and more, separable and not.
TEST(LinearProbe, EqualsNumpyWhichEqualsScikitLearn) {
  for (const nlohmann::json& expected : ExpectedValues()["linear_probe"]) {
    const double c = expected["inverse_regularization"];
    const LayerVector layer =
        Computed(DataSetOf(expected), {.inverse_regularization = c}).layers[0];
    const auto wanted = expected["vector"].get<std::vector<double>>();
    ASSERT_EQ(layer.vector.size(), wanted.size());
    const double norm = expected["norm"];
    ExpectAllNear(layer.vector, wanted, 1e-7 * norm);  // rounded to float32
    EXPECT_NEAR(layer.norm, norm, 1e-9 * norm);
    EXPECT_NEAR(*layer.intercept, expected["intercept"], 1e-9 * norm);
    EXPECT_NEAR(*layer.split_half_cosine, expected["split_half_cosine"], 1e-9);
    EXPECT_DOUBLE_EQ(*layer.auroc, expected["auroc"]);
    EXPECT_TRUE(layer.settled);
  }
}

// At the optimum |w|^2 / 2 + C sum of losses has no slope: w = C sum (t - p) a and sum (t - p) = 0.
// The vector is float32, so that is how exactly it can be seen here.
TEST(LinearProbe, TheGradientIsZeroWhateverTheScale) {
  for (const double scale : {1e-3, 1.0, 300.0}) {
    for (const double c : {1e-6, 1e-2, 1.0, 1e3, 1e6}) {
      DataSet data = RandomDataSet(12, 3);
      for (std::vector<double>& a : data.activations) {
        for (double& x : a) x = 100 * scale + scale * x;  // far from the origin
      }
      const LayerVector layer = Computed(data, {.inverse_regularization = c}).layers[0];
      EXPECT_TRUE(layer.settled) << scale << " " << c;
      std::vector<double> gradient(layer.vector.begin(), layer.vector.end());
      double of_intercept = 0, first = 0;
      for (size_t r = 0; r < data.labels.size(); ++r) {
        const std::vector<double>& a = data.activations[r];
        const double score = InnerProduct(layer.vector, a) + *layer.intercept;
        const double left = (data.labels[r] ? 1.0 : 0.0) - 1 / (1 + std::exp(-score));
        of_intercept += c * left;
        AddScaled(a, -c * left, gradient);
        first += c * Norm(a);
      }
      // A float32 weight off by half an ulp moves every score, and with it every term.
      const double rounding = 1e-7 * (1 + layer.norm * 400 * scale);
      EXPECT_LT(Norm(gradient), rounding * first) << scale << " " << c;
      EXPECT_LT(std::abs(of_intercept), rounding * c * 36) << scale << " " << c;
    }
  }
}

// Two responses: by symmetry b is where the middle scores zero, and w = 2 m (a - b) / |a - b|^2
// with m = C |a - b|^2 / 2 / (1 + exp(m)).
TEST(LinearProbe, TwoResponsesHaveAClosedForm) {
  DataSet data;
  data.width = 2;
  data.Append(true, "a", {3, 1});
  data.Append(false, "b", {1, 1});
  const LayerVector layer = Computed(data, {.inverse_regularization = 0.5}).layers[0];
  double m = 0;
  for (int i = 0; i < 200; ++i) m = (m + 0.5 * 4 / 2 / (1 + std::exp(m))) / 2;
  EXPECT_NEAR(layer.vector[0], m, 1e-7);
  EXPECT_EQ(layer.vector[1], 0);
  EXPECT_NEAR(*layer.intercept, -2 * m, 1e-9);
}

TEST(LinearProbe, SwappingLabelsNegates) {
  DataSet data = RandomDataSet(9, 3);
  const LayerVector before = Computed(data).layers[0];
  data.labels.flip();
  const LayerVector after = Computed(data).layers[0];
  for (size_t i = 0; i < before.vector.size(); ++i) {
    EXPECT_NEAR(after.vector[i], -before.vector[i], 1e-7);
  }
  EXPECT_NEAR(*after.intercept, -*before.intercept, 1e-9);
  EXPECT_DOUBLE_EQ(*after.auroc, *before.auroc);
}

TEST(LinearProbe, AShiftOfAllActivationsGoesIntoTheIntercept) {
  const DataSet data = RandomDataSet(10, 2);
  DataSet shifted = data;
  for (std::vector<double>& a : shifted.activations) a[2] += 1000;
  const LayerVector before = Computed(data).layers[0], after = Computed(shifted).layers[0];
  ExpectAllNear(after.vector, before.vector, 1e-7);
  EXPECT_NEAR(*after.intercept, *before.intercept - 1000 * before.vector[2], 1e-3);
}

TEST(LinearProbe, ResponsesThatAreAllAlikeHaveNoWeights) {
  DataSet data;
  data.width = 2;
  for (int q = 0; q < 7; ++q) data.Append(q < 2, absl::StrCat(q), {0.1, 1.0 / 3});
  const LayerVector layer = Computed(data).layers[0];
  EXPECT_EQ(layer.vector, (std::vector<float>{0, 0}));
  EXPECT_NEAR(*layer.intercept, std::log(2.0 / 5), 1e-12);
  EXPECT_TRUE(layer.settled);
  EXPECT_EQ(AbsentOf(layer).at("split_half_cosine"), Absence::kZeroVector);
}

TEST(LinearProbe, WhatHasNoMeaningIsNamed) {
  DataSet data;
  data.width = 1;
  data.Append(true, "a", {1});
  data.Append(false, "a", {0});
  EXPECT_EQ(AbsentOf(Computed(data).layers[0]),
            (std::map<std::string, Absence>{{"relative_norm", Absence::kMethod},
                                            {"debiased_squared_norm", Absence::kMethod},
                                            {"clustered_squared_norm", Absence::kMethod},
                                            {"squared_norm_interval", Absence::kMethod},
                                            {"norm_interval", Absence::kMethod},
                                            {"split_half_cosine", Absence::kOneQuery},
                                            {"reliability", Absence::kOneQuery},
                                            {"auroc", Absence::kOneQuery}}));
}

TEST(LinearProbe, BadInputIsRefusedByName) {
  const DataSet good = RandomDataSet(4, 2);
  const auto error_field = [](const DataSet& data, double c) {
    const auto result =
        ComputeLinearProbes(data.Responses(), 1, data.width, {.inverse_regularization = c});
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return DetailsOf(result.status()).field;
  };
  for (const double c : {0.0, -1.0, 2e6, 9e-7, std::nan(""), HUGE_VAL}) {
    EXPECT_EQ(error_field(good, c), "options.inverse_regularization") << c;
  }
  DataSet data = good;
  data.labels.assign(data.labels.size(), true);
  EXPECT_EQ(error_field(data, 1), "responses");
  data = RandomDataSet(static_cast<int>(kMostProbeResponses), 1);
  data.Append(true, "", {1, 2, 3, 4});
  EXPECT_EQ(error_field(data, 1), "responses");
}

TEST(LinearProbe, StopsWhenCancelled) {
  const DataSet data = RandomDataSet(4, 2);
  Cancellation cancellation;
  cancellation.Cancel();
  EXPECT_EQ(ComputeLinearProbes(data.Responses(), 1, data.width, {}, cancellation).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace valuescope::analysis
