#include "analysis/difference_in_means.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

// Labelled responses that own their activations.
struct DataSet {
  int64_t num_layers = 1;
  int64_t width = 4;
  std::vector<bool> labels;
  std::vector<std::string> queries;
  std::vector<std::vector<double>> activations;  // each [num_layers, width]

  std::vector<LabelledActivations> Responses() const {
    std::vector<LabelledActivations> out;
    for (size_t r = 0; r < labels.size(); ++r) {
      out.push_back({.expresses = labels[r],
                     .query_id = queries[r],
                     .mean_activations = std::span<const double>(activations[r])});
    }
    return out;
  }

  DifferenceInMeans Compute(const DifferenceInMeansOptions& options = {}) const {
    auto result = ComputeDifferenceInMeans(Responses(), num_layers, width, options);
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  }

  void Append(bool label, const std::string& query, std::vector<double> activation) {
    labels.push_back(label);
    queries.push_back(query);
    activations.push_back(std::move(activation));
  }
};

DataSet RandomDataSet(int num_queries, int responses_a_query) {
  DataSet data;
  for (int q = 0; q < num_queries; ++q) {
    for (int k = 0; k < responses_a_query; ++k) {
      const std::vector<float> noise = RandomNormal(data.width, 100 * q + k);
      std::vector<double> activation(noise.begin(), noise.end());
      const bool label = (q + k) % 2 == 0;
      if (label) activation[0] += 1.5;
      data.Append(label, absl::StrCat("q", q), activation);
    }
  }
  return data;
}

TEST(DifferenceInMeans, EqualsNumpyInEveryStatistic) {
  for (const nlohmann::json& expected : ExpectedValues()["difference_in_means"]) {
    DataSet data;
    data.num_layers = expected["num_layers"];
    data.width = expected["width"];
    data.labels = expected["labels"].get<std::vector<bool>>();
    data.queries = expected["queries"].get<std::vector<std::string>>();
    const auto values = expected["activations"].get<std::vector<double>>();
    const int64_t size = data.num_layers * data.width;
    for (size_t r = 0; r < data.labels.size(); ++r) {
      data.activations.emplace_back(values.begin() + r * size, values.begin() + (r + 1) * size);
    }
    const DifferenceInMeans result = data.Compute();
    EXPECT_FALSE(result.relative_norm_over_tokens);
    for (int64_t l = 0; l < data.num_layers; ++l) {
      const LayerDifference& layer = result.layers[l];
      const nlohmann::json& wanted = expected["layers"][l];
      ExpectAllNear(layer.vector, wanted["vector"].get<std::vector<double>>(), 1e-6);
      EXPECT_NEAR(layer.norm, wanted["norm"], 1e-12);
      EXPECT_NEAR(*layer.relative_norm, wanted["relative_norm"], 1e-12);
      EXPECT_NEAR(*layer.split_half_cosine, wanted["split_half_cosine"], 1e-12);
      EXPECT_NEAR(*layer.reliability, wanted["reliability"], 1e-12);
      EXPECT_NEAR(*layer.auroc, wanted["auroc"], 1e-12);
      EXPECT_NEAR(*layer.expressing_covariance_trace, wanted["expressing_trace"], 1e-12);
      EXPECT_NEAR(*layer.non_expressing_covariance_trace, wanted["non_expressing_trace"], 1e-12);
      EXPECT_NEAR(*layer.debiased_squared_norm, wanted["debiased"], 1e-12);
    }
  }
}

TEST(DifferenceInMeans, FloatAndDoubleActivationsAgree) {
  const std::vector<float> expressing = {1, 2};
  const std::vector<double> other = {0.5, -1};
  const std::vector<LabelledActivations> responses = {
      {.expresses = true, .mean_activations = std::span<const float>(expressing)},
      {.expresses = false, .mean_activations = std::span<const double>(other)}};
  const auto result = ComputeDifferenceInMeans(responses, 1, 2);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->layers[0].vector, (std::vector<float>{0.5, 3}));
}

TEST(DifferenceInMeans, SwappingLabelsNegatesTheVectorAndKeepsItsQuality) {
  DataSet data = RandomDataSet(11, 2);
  const LayerDifference before = data.Compute().layers[0];
  data.labels.flip();
  const LayerDifference after = data.Compute().layers[0];
  for (size_t i = 0; i < before.vector.size(); ++i) {
    EXPECT_EQ(after.vector[i], -before.vector[i]);
  }
  EXPECT_EQ(after.norm, before.norm);
  EXPECT_DOUBLE_EQ(*after.auroc, *before.auroc);
  EXPECT_DOUBLE_EQ(*after.split_half_cosine, *before.split_half_cosine);
  EXPECT_DOUBLE_EQ(after.norm_interval->lower, before.norm_interval->lower);
}

TEST(DifferenceInMeans, OrderDoesNotChangeTheVector) {
  const DataSet data = RandomDataSet(9, 3);
  DataSet reversed = data;
  std::reverse(reversed.labels.begin(), reversed.labels.end());
  std::reverse(reversed.queries.begin(), reversed.queries.end());
  std::reverse(reversed.activations.begin(), reversed.activations.end());
  ExpectAllNear(reversed.Compute().layers[0].vector, data.Compute().layers[0].vector, 1e-6);
}

TEST(DifferenceInMeans, DuplicationKeepsTheVectorButNotTheDebiasedNorm) {
  const DataSet data = RandomDataSet(9, 2);
  DataSet twice = data;
  for (size_t r = 0; r < data.labels.size(); ++r) {
    twice.Append(data.labels[r], data.queries[r], data.activations[r]);
  }
  const LayerDifference once = data.Compute().layers[0];
  const LayerDifference doubled = twice.Compute().layers[0];
  ExpectAllNear(doubled.vector, once.vector, 1e-6);
  EXPECT_GT(*doubled.debiased_squared_norm, *once.debiased_squared_norm + 0.01);
  // Whole queries are resampled, so doubling each query's responses is no new information.
  EXPECT_NEAR(doubled.norm_interval->lower, once.norm_interval->lower, 1e-12);
  EXPECT_NEAR(doubled.norm_interval->upper, once.norm_interval->upper, 1e-12);
}

TEST(DifferenceInMeans, RotationLeavesTheStatisticsUnchanged) {
  const DataSet data = RandomDataSet(10, 2);
  DataSet rotated = data;
  for (std::vector<double>& activation : rotated.activations) {
    activation = Rotate(std::vector<float>(activation.begin(), activation.end()), data.width);
  }
  const LayerDifference a = data.Compute().layers[0];
  const LayerDifference b = rotated.Compute().layers[0];
  EXPECT_GT(std::abs(a.vector[0] - b.vector[0]), 0.01);
  EXPECT_NEAR(a.norm, b.norm, 1e-6);
  EXPECT_NEAR(*a.split_half_cosine, *b.split_half_cosine, 1e-6);
  EXPECT_NEAR(*a.auroc, *b.auroc, 1e-12);
  EXPECT_NEAR(*a.debiased_squared_norm, *b.debiased_squared_norm, 1e-6);
}

TEST(DifferenceInMeans, BootstrapOfTwoQueriesHasItsThreePossibleValues) {
  // Differences of the two queries have lengths 1 and 3 in one direction: resamples give 1, 2 or 3.
  DataSet data;
  data.width = 1;
  data.Append(true, "a", {1});
  data.Append(false, "a", {0});
  data.Append(true, "b", {3});
  data.Append(false, "b", {0});
  const LayerDifference layer = data.Compute({.interval_level = 0.95}).layers[0];
  EXPECT_DOUBLE_EQ(layer.norm, 2.0);
  EXPECT_DOUBLE_EQ(layer.norm_interval->lower, 1.0);
  EXPECT_DOUBLE_EQ(layer.norm_interval->upper, 3.0);
  // Half of all resamples are 2, so the middle 40 % is 2 alone.
  const LayerDifference middle =
      data.Compute({.bootstrap_resamples = 1000, .interval_level = 0.4}).layers[0];
  EXPECT_DOUBLE_EQ(middle.norm_interval->lower, 2.0);
  EXPECT_DOUBLE_EQ(middle.norm_interval->upper, 2.0);
}

TEST(DifferenceInMeans, BootstrapWidthIsTheStandardErrorOfAMean) {
  // One coordinate far from zero: |v| is the difference of two means of 50 with unit variance,
  // whose standard error is sqrt(2 / 50) = .2; the 95 % interval is about 3.92 of them wide.
  DataSet data;
  data.width = 1;
  for (int q = 0; q < 100; ++q) {
    const double noise = RandomNormal(1, 7000 + q)[0];
    data.Append(q % 2 == 0, absl::StrCat(q), {noise + (q % 2 == 0 ? 20.0 : 0.0)});
  }
  const LayerDifference layer = data.Compute({.bootstrap_resamples = 2000}).layers[0];
  const double width = layer.norm_interval->upper - layer.norm_interval->lower;
  const double standard_error = std::sqrt(*layer.expressing_covariance_trace / 50 +
                                          *layer.non_expressing_covariance_trace / 50);
  EXPECT_NEAR(width / standard_error, 3.92, 0.35);
}

// Coordinates that are zero add nothing, wherever the others stand among them.
TEST(DifferenceInMeans, WideLayersHaveTheIntervalOfTheirCoordinatesToTheBit) {
  const DataSet narrow = RandomDataSet(6, 3);
  const ConfidenceInterval expected = *narrow.Compute({.seed = 3}).layers[0].norm_interval;
  for (const int64_t begin : {0, 1020, 1022, 2047, 2996}) {
    DataSet wide = narrow;
    wide.width = 3000;
    for (size_t r = 0; r < wide.activations.size(); ++r) {
      wide.activations[r].assign(3000, 0.0);
      std::copy(narrow.activations[r].begin(), narrow.activations[r].end(),
                wide.activations[r].begin() + begin);
    }
    const ConfidenceInterval interval = *wide.Compute({.seed = 3}).layers[0].norm_interval;
    EXPECT_EQ(interval.lower, expected.lower) << begin;
    EXPECT_EQ(interval.upper, expected.upper) << begin;
  }
}

TEST(DifferenceInMeans, TheSeedAloneDecidesTheResamples) {
  const DataSet data = RandomDataSet(12, 2);
  const auto interval = [&](uint64_t seed) {
    return *data.Compute({.seed = seed}).layers[0].norm_interval;
  };
  EXPECT_EQ(interval(3).lower, interval(3).lower);
  EXPECT_NE(interval(3).lower, interval(4).lower);
  EXPECT_FALSE(data.Compute({.bootstrap_resamples = 0}).layers[0].norm_interval.has_value());
}

TEST(DifferenceInMeans, ResponsesOfOneQueryStayInOneHalf) {
  // Every query has one label, so with four queries in the order + - + - queries alternate into a
  // half of + only and a half of - only: nothing held out can be computed.
  DataSet data;
  data.width = 1;
  for (int q = 0; q < 4; ++q) {
    for (double k : {0.0, 1.0}) data.Append(q % 2 == 0, absl::StrCat(q), {q + k});
  }
  const DifferenceInMeans grouped = data.Compute();
  EXPECT_EQ(grouped.num_queries, 4);
  EXPECT_FALSE(grouped.layers[0].auroc.has_value());
  EXPECT_FALSE(grouped.layers[0].split_half_cosine.has_value());
  // As queries of their own they alternate within each label.
  for (std::string& query : data.queries) query.clear();
  const DifferenceInMeans single = data.Compute();
  EXPECT_EQ(single.num_queries, 8);
  EXPECT_TRUE(single.layers[0].auroc.has_value());
}

TEST(DifferenceInMeans, TokenNormsGiveTheMeanOverTokens) {
  const std::vector<double> a = {3, 0};
  const std::vector<double> b = {0, 0};
  const std::vector<double> sums_a = {30};
  const std::vector<double> sums_b = {2};
  const std::vector<LabelledActivations> responses = {
      {.expresses = true,
       .mean_activations = std::span<const double>(a),
       .num_tokens = 6,
       .token_norm_sums = sums_a},
      {.expresses = false,
       .mean_activations = std::span<const double>(b),
       .num_tokens = 2,
       .token_norm_sums = sums_b}};
  const auto result = ComputeDifferenceInMeans(responses, 1, 2);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->relative_norm_over_tokens);
  EXPECT_DOUBLE_EQ(*result->layers[0].relative_norm, 3.0 / 4.0);
}

TEST(DifferenceInMeans, WhatTheDataCannotGiveIsAbsent) {
  DataSet data;
  data.width = 1;
  data.Append(true, "a", {1});
  data.Append(false, "a", {1});
  const LayerDifference layer = data.Compute().layers[0];
  EXPECT_EQ(layer.norm, 0.0);
  EXPECT_FALSE(layer.split_half_cosine || layer.reliability || layer.auroc ||
               layer.debiased_squared_norm || layer.norm_interval ||
               layer.expressing_covariance_trace);
  EXPECT_EQ(*layer.relative_norm, 0.0);
}

TEST(DifferenceInMeans, BadInputIsRefusedByName) {
  const DataSet good = RandomDataSet(4, 2);
  const auto error_field = [](const DataSet& data, DifferenceInMeansOptions options = {}) {
    const auto result =
        ComputeDifferenceInMeans(data.Responses(), data.num_layers, data.width, options);
    EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
    return DetailsOf(result.status()).field;
  };
  DataSet data = good;
  data.activations[3].pop_back();
  EXPECT_EQ(error_field(data), "responses[3].mean_activations");
  data = good;
  data.activations[5][1] = NAN;
  EXPECT_EQ(error_field(data), "responses[5].mean_activations");
  data = good;
  data.labels.assign(data.labels.size(), true);
  EXPECT_EQ(error_field(data), "responses");
  EXPECT_EQ(error_field(DataSet()), "responses");
  EXPECT_EQ(error_field(good, {.bootstrap_resamples = -1}), "options.bootstrap_resamples");
  EXPECT_EQ(error_field(good, {.interval_level = 1.0}), "options.interval_level");
  EXPECT_FALSE(ComputeDifferenceInMeans(good.Responses(), int64_t{1} << 40, int64_t{1} << 40).ok());
}

// Of processor time, which unlike the hour says how far a thread is.
absl::Duration UsedBy(clockid_t thread) {
  timespec used;
  clock_gettime(thread, &used);
  return absl::DurationFromTimespec(used);
}

TEST(DifferenceInMeans, StopsWhenCancelledBetweenResamples) {
  DataSet data = RandomDataSet(/*num_queries=*/20000, /*responses_a_query=*/1);
  data.num_layers = 1;
  clockid_t own;
  ASSERT_EQ(pthread_getcpuclockid(pthread_self(), &own), 0);
  const absl::Duration start = UsedBy(own);
  ASSERT_TRUE(ComputeDifferenceInMeans(data.Responses(), data.num_layers, data.width,
                                       {.bootstrap_resamples = 0})
                  .ok());
  // Twice what all the rest takes: by then it resamples, which takes a hundred times as long.
  const absl::Duration resampling = UsedBy(own) + 2 * (UsedBy(own) - start);
  Cancellation cancellation;
  std::atomic<bool> ended = false;
  std::thread canceller([&] {
    while (UsedBy(own) < resampling && !ended) std::this_thread::yield();
    cancellation.Cancel();
  });
  const auto result = ComputeDifferenceInMeans(data.Responses(), data.num_layers, data.width,
                                               {.bootstrap_resamples = 10000}, cancellation);
  ended = true;
  canceller.join();
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace valuescope::analysis
