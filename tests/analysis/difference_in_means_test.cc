#include "analysis/difference_in_means.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "tests/analysis/data_set.h"
#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

TEST(DifferenceInMeans, EqualsNumpyInEveryStatistic) {
  for (const nlohmann::json& expected : ExpectedValues()["difference_in_means"]) {
    const DataSet data = DataSetOf(expected);
    const ValueVectors result = data.Compute({.weigh_by_tokens = !data.tokens.empty()});
    EXPECT_FALSE(result.relative_norm_over_tokens);
    for (int64_t l = 0; l < data.num_layers; ++l) {
      const LayerVector& layer = result.layers[l];
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
      const double scale = layer.squared_norm_interval->upper;
      EXPECT_NEAR(*layer.clustered_squared_norm, wanted["clustered"], 1e-9 * scale);
      const nlohmann::json& interval = wanted["squared_norm_interval"];
      EXPECT_NEAR(layer.squared_norm_interval->lower, interval[0], 1e-9 * scale);
      EXPECT_NEAR(layer.squared_norm_interval->upper, interval[1], 1e-9 * scale);
      EXPECT_TRUE(layer.absent.empty());
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
  const LayerVector before = data.Compute().layers[0];
  data.labels.flip();
  const LayerVector after = data.Compute().layers[0];
  for (size_t i = 0; i < before.vector.size(); ++i) {
    EXPECT_EQ(after.vector[i], -before.vector[i]);
  }
  EXPECT_EQ(after.norm, before.norm);
  EXPECT_DOUBLE_EQ(*after.auroc, *before.auroc);
  EXPECT_DOUBLE_EQ(*after.split_half_cosine, *before.split_half_cosine);
  EXPECT_NEAR(after.squared_norm_interval->lower, before.squared_norm_interval->lower, 1e-12);
  EXPECT_NEAR(after.norm_interval->upper, before.norm_interval->upper, 1e-12);
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
  const LayerVector once = data.Compute().layers[0];
  const LayerVector doubled = twice.Compute().layers[0];
  ExpectAllNear(doubled.vector, once.vector, 1e-6);
  EXPECT_GT(*doubled.debiased_squared_norm, *once.debiased_squared_norm + 0.01);
  // Queries are what varies, so doubling each query's responses is no new information.
  EXPECT_NEAR(*doubled.clustered_squared_norm, *once.clustered_squared_norm, 1e-12);
  EXPECT_NEAR(doubled.norm_interval->lower, once.norm_interval->lower, 1e-12);
  EXPECT_NEAR(doubled.norm_interval->upper, once.norm_interval->upper, 1e-12);
}

TEST(DifferenceInMeans, RotationLeavesTheStatisticsUnchanged) {
  const DataSet data = RandomDataSet(10, 2);
  DataSet rotated = data;
  for (std::vector<double>& activation : rotated.activations) {
    activation = Rotate(std::vector<float>(activation.begin(), activation.end()), data.width);
  }
  const LayerVector a = data.Compute().layers[0];
  const LayerVector b = rotated.Compute().layers[0];
  EXPECT_GT(std::abs(a.vector[0] - b.vector[0]), 0.01);
  EXPECT_NEAR(a.norm, b.norm, 1e-6);
  EXPECT_NEAR(*a.split_half_cosine, *b.split_half_cosine, 1e-6);
  EXPECT_NEAR(*a.auroc, *b.auroc, 1e-12);
  EXPECT_NEAR(*a.debiased_squared_norm, *b.debiased_squared_norm, 1e-6);
  EXPECT_NEAR(a.squared_norm_interval->lower, b.squared_norm_interval->lower, 1e-5);
  EXPECT_NEAR(a.squared_norm_interval->upper, b.squared_norm_interval->upper, 1e-5);
}

// One direction: the root of the interval is Student's of two samples.
TEST(DifferenceInMeans, OneCoordinateHasTheIntervalOfStudentsTest) {
  DataSet data;
  data.width = 1;
  double sum = 0, squares = 0;
  for (int q = 0; q < 20; ++q) {
    // Both labels have the same noise, so that they share its variance.
    const double noise = RandomNormal(1, 7000 + q / 2)[0];
    data.Append(q % 2 == 0, "", {noise + (q % 2 == 0 ? 20.0 : 0.0)});
    sum += noise / 2;
    squares += noise * noise / 2;
  }
  const double error = 2 * (squares - sum * sum / 10) / 90;
  const LayerVector layer = data.Compute().layers[0];
  EXPECT_NEAR(*layer.clustered_squared_norm, layer.norm * layer.norm - error, 1e-9);
  const double reach = 2.10092204 * std::sqrt(error);  // 18 degrees of freedom
  EXPECT_NEAR(layer.norm_interval->lower, layer.norm - reach, 1e-6);
  EXPECT_NEAR(layer.norm_interval->upper, layer.norm + reach, 1e-6);
}

// Coordinates that are zero add nothing, wherever the others stand among them.
TEST(DifferenceInMeans, WideLayersHaveTheIntervalOfTheirCoordinates) {
  const DataSet narrow = RandomDataSet(6, 3);
  std::optional<LayerVector> first;
  for (const int64_t begin : {0, 1020, 1022, 2047, 2996}) {
    DataSet wide = narrow;
    wide.width = 3000;
    for (size_t r = 0; r < wide.activations.size(); ++r) {
      wide.activations[r].assign(3000, 0.0);
      std::copy(narrow.activations[r].begin(), narrow.activations[r].end(),
                wide.activations[r].begin() + begin);
    }
    const LayerVector layer = wide.Compute().layers[0];
    if (!first) first = layer;
    EXPECT_NEAR(*layer.clustered_squared_norm, *first->clustered_squared_norm, 1e-12) << begin;
    EXPECT_NEAR(layer.squared_norm_interval->upper, first->squared_norm_interval->upper, 1e-9)
        << begin;
  }
}

TEST(DifferenceInMeans, WithoutVarianceTheIntervalIsThePoint) {
  DataSet data;
  data.width = 2;
  for (int q = 0; q < 6; ++q) data.Append(q % 2 == 0, "", {q % 2 == 0 ? 3.0 : 0.0, 4.0});
  const LayerVector layer = data.Compute().layers[0];
  EXPECT_EQ(layer.norm_interval->lower, 3.0);
  EXPECT_EQ(layer.norm_interval->upper, 3.0);
}

TEST(DifferenceInMeans, IntervalsCanBeLeftOut) {
  const LayerVector layer = RandomDataSet(6, 2).Compute({.intervals = false}).layers[0];
  EXPECT_FALSE(layer.norm_interval || layer.squared_norm_interval);
  EXPECT_TRUE(layer.clustered_squared_norm.has_value());
  EXPECT_TRUE(layer.absent.empty());
}

// tests/bench/coverage simulates many more cells.
TEST(DifferenceInMeans, IntervalsCoverTheTrueSquaredNorm) {
  constexpr int kDataSets = 400, kQueries = 20;
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  for (const int64_t width : {1, 64}) {
    for (const double spike : {1.0, 8.0}) {          // standard deviation of the first coordinate
      for (const double effect : {0.0, 1.5, 6.0}) {  // along it
        if (width == 1 && spike > 1) continue;
        int covered = 0;
        for (int i = 0; i < kDataSets; ++i) {
          DataSet data;
          data.width = width;
          for (int q = 0; q < kQueries; ++q) {
            // Two responses a query, half of whose variance is the query's; labels in pairs or not.
            std::vector<double> shared(width);
            for (double& x : shared) x = normal(random);
            for (const bool second : {false, true}) {
              const bool label = q % 3 == 0 ? second : q % 3 == 1;
              std::vector<double> a(width);
              for (int64_t k = 0; k < width; ++k) a[k] = shared[k] + normal(random);
              a[0] *= spike;
              if (label) a[0] += effect;
              data.Append(label, absl::StrCat(q), a);
            }
          }
          const ConfidenceInterval interval = *data.Compute().layers[0].squared_norm_interval;
          covered += interval.lower <= effect * effect && effect * effect <= interval.upper;
        }
        // Four standard errors of the count below .95.
        EXPECT_GE(covered, kDataSets * 0.95 - 4 * std::sqrt(kDataSets * 0.05 * 0.95))
            << width << " " << spike << " " << effect;
      }
    }
  }
}

TEST(DifferenceInMeans, HalvesHoldBothLabelsWhereverTheDataAllowIt) {
  std::mt19937_64 random(3);
  int given = 0, refused = 0;
  for (int trial = 0; trial < 300; ++trial) {
    DataSet data;
    data.width = 2;
    std::map<std::string, std::array<bool, 2>> queries;
    for (int r = 0; r < 3 + trial % 6; ++r) {
      const bool label = random() % 2 == 0;
      const std::string query = absl::StrCat(random() % 5);
      queries[query][label] = true;
      data.Append(label, query, {static_cast<double>(random() % 1000), 1.0 + r});
    }
    int of_label[2] = {0, 0};
    for (const auto& [query, labels] : queries) {
      for (const int label : {0, 1}) of_label[label] += labels[label];
    }
    if (of_label[0] == 0 || of_label[1] == 0) continue;
    const LayerVector layer = data.Compute().layers[0];
    const bool allowed = of_label[0] > 1 && of_label[1] > 1;
    (allowed ? given : refused) += 1;
    EXPECT_EQ(layer.auroc.has_value(), allowed) << trial;
    EXPECT_EQ(layer.squared_norm_interval.has_value(), allowed) << trial;
  }
  EXPECT_GT(given, 50);
  EXPECT_GT(refused, 20);
}

TEST(DifferenceInMeans, ResponsesOfOneQueryStayInOneHalf) {
  // Halves {0, 1} and {10, 11} of either label would have the vectors 0; as it is they are those of
  // the queries, 10 and -10.
  DataSet data;
  data.width = 1;
  for (const double k : {0.0, 1.0}) {
    data.Append(true, "a", {10 + k});
    data.Append(true, "b", {k});
    data.Append(false, "c", {k});
    data.Append(false, "d", {10 + k});
  }
  const LayerVector layer = data.Compute().layers[0];
  EXPECT_EQ(layer.norm, 0.0);
  EXPECT_DOUBLE_EQ(*layer.split_half_cosine, -1.0);
}

TEST(DifferenceInMeans, OneRepeatedQueryKeepsTheHalvesOfTheOthers) {
  // Alternation over all queries would give one half to either label.
  DataSet data;
  data.width = 1;
  for (int r = 0; r < 9; ++r) {
    data.Append(r % 2 == 0, absl::StrCat(r == 8 ? 0 : r), {r % 2 == 0 ? 3.0 + r : 0.1 * r});
  }
  const LayerVector layer = data.Compute().layers[0];
  EXPECT_TRUE(layer.auroc.has_value());
  EXPECT_TRUE(layer.reliability.has_value());
  EXPECT_TRUE(layer.absent.empty());
}

// A query that holds every token of its label apart from a few still leaves the others their say.
TEST(DifferenceInMeans, WeighedByTokensIsTheMeanOfAllTokens) {
  DataSet data;
  data.width = 1;
  data.tokens = {1000, 1, 2, 3};
  data.Append(true, "a", {2});
  data.Append(true, "b", {4});
  data.Append(false, "b", {1});
  data.Append(false, "c", {6});
  const LayerVector layer = data.Compute({.weigh_by_tokens = true}).layers[0];
  EXPECT_NEAR(layer.norm, std::abs(2004.0 / 1001 - 20.0 / 5), 1e-12);
  EXPECT_TRUE(layer.auroc && layer.debiased_squared_norm && layer.squared_norm_interval);
}

TEST(DifferenceInMeans, WeighedByEqualTokensIsTheMeanOfResponses) {
  DataSet data = RandomDataSet(10, 3);
  const LayerVector responses = data.Compute().layers[0];
  data.tokens.assign(data.labels.size(), 7);
  const LayerVector tokens = data.Compute({.weigh_by_tokens = true}).layers[0];
  ExpectAllNear(tokens.vector, responses.vector, 1e-6);
  EXPECT_NEAR(*tokens.debiased_squared_norm, *responses.debiased_squared_norm, 1e-12);
  EXPECT_NEAR(*tokens.clustered_squared_norm, *responses.clustered_squared_norm, 1e-12);
  EXPECT_NEAR(*tokens.split_half_cosine, *responses.split_half_cosine, 1e-12);
  EXPECT_EQ(*tokens.auroc, *responses.auroc);
  // A bound takes roots of differences that are 0 but for rounding, which leaves half of the
  // digits.
  EXPECT_NEAR(tokens.squared_norm_interval->upper, responses.squared_norm_interval->upper, 1e-7);
}

// Lengths go with the value here, so that the mean over tokens is another number than that over
// responses, and with noise, so that the ratio's variance is not the one that lengths alone give.
TEST(DifferenceInMeans, WeighedByTokensIntervalsCoverTheTrueRatio) {
  constexpr int kDataSets = 400, kQueries = 40;
  std::mt19937_64 random(12);
  std::normal_distribution<double> normal;
  for (const int64_t width : {1, 32}) {
    int covered = 0;
    for (int i = 0; i < kDataSets; ++i) {
      DataSet data;
      data.width = width;
      for (int q = 0; q < kQueries; ++q) {
        for (const bool label : {false, true}) {
          // 10, 20 or 30 tokens; longer ones lie further along the first coordinate, and expressing
          // ones 3 further: the true ratios are sum T (T / 10) / sum T, 140 / 60, and that plus 3.
          const auto tens = static_cast<int64_t>(random() % 3 + 1);
          std::vector<double> a(width);
          for (double& x : a) x = normal(random);
          a[0] += static_cast<double>(tens) + (label ? 3.0 : 0.0);
          data.Append(label, absl::StrCat(q), a);
          data.tokens.push_back(10 * tens);
        }
      }
      const ConfidenceInterval interval =
          *data.Compute({.weigh_by_tokens = true}).layers[0].squared_norm_interval;
      covered += interval.lower <= 9 && 9 <= interval.upper;
    }
    EXPECT_GE(covered, kDataSets * 0.95 - 4 * std::sqrt(kDataSets * 0.05 * 0.95)) << width;
    EXPECT_LT(covered, kDataSets) << width;  // wide enough for anything says nothing
  }
}

// Sums of the responses of a data set as shards make them: `cut` of them, then the others.
std::vector<LayerSums> SumsOf(const DataSet& data, bool weigh_by_tokens, size_t cut) {
  const std::vector<LabelledActivations> responses = data.Responses();
  const Grouping grouping = GroupingOf(responses, weigh_by_tokens);
  std::vector<LayerSums> whole;
  for (int64_t layer = 0; layer < data.num_layers; ++layer) {
    std::array<LayerSums, 2> shards = {LayerSums(data.width, weigh_by_tokens),
                                       LayerSums(data.width, weigh_by_tokens)};
    std::vector<double> row(data.width);
    for (size_t r = 0; r < responses.size(); ++r) {
      EXPECT_EQ(ReadRow(responses[r], layer, row), absl::OkStatus());
      EXPECT_EQ(shards[r < cut ? 0 : 1].Add(row, grouping.half[r], LabelIndex(responses[r]),
                                            grouping.weight[r]),
                absl::OkStatus());
    }
    std::string bytes;
    shards[1].AppendTo(bytes);
    EXPECT_EQ(bytes.size(), LayerSums::SerializedBytes(data.width, weigh_by_tokens));
    const auto stored = LayerSums::Parse(bytes, data.width, weigh_by_tokens);
    EXPECT_TRUE(stored.ok()) << stored.status();
    EXPECT_EQ(shards[0].Merge(*stored), absl::OkStatus());
    whole.push_back(std::move(shards[0]));
  }
  return whole;
}

TEST(DifferenceInMeans, SumsAloneGiveTheSameButWhatNeedsAnotherLook) {
  for (const bool weigh_by_tokens : {false, true}) {
    DataSet data = RandomDataSet(9, 3);
    for (size_t r = 0; r < data.labels.size(); ++r) {
      data.tokens.push_back(static_cast<int64_t>(r % 5 + 1));
    }
    const DifferenceInMeansOptions options = {.weigh_by_tokens = weigh_by_tokens};
    const LayerVector of_all = data.Compute(options).layers[0];
    std::vector<LabelledActivations> labels = data.Responses();
    for (LabelledActivations& label : labels) label.mean_activations = std::span<const double>();
    const auto result =
        DifferenceInMeansOfSums(labels, SumsOf(data, weigh_by_tokens, /*cut=*/11), options);
    ASSERT_TRUE(result.ok()) << result.status();
    const LayerVector& layer = result->layers[0];
    ExpectAllNear(layer.vector, of_all.vector, 1e-6);
    EXPECT_NEAR(layer.norm, of_all.norm, 1e-12);
    EXPECT_NEAR(*layer.relative_norm, *of_all.relative_norm, 1e-12);
    EXPECT_NEAR(*layer.split_half_cosine, *of_all.split_half_cosine, 1e-12);
    EXPECT_NEAR(*layer.reliability, *of_all.reliability, 1e-12);
    EXPECT_EQ(layer.debiased_squared_norm.has_value(), !weigh_by_tokens);
    if (!weigh_by_tokens) {
      EXPECT_NEAR(*layer.debiased_squared_norm, *of_all.debiased_squared_norm, 1e-12);
    }
    std::set<absl::string_view> absent;
    for (const AbsentStatistic& one : layer.absent) {
      EXPECT_EQ(one.why, Absence::kTooLarge);
      absent.insert(one.name);
    }
    std::set<absl::string_view> wanted = {"auroc", "clustered_squared_norm",
                                          "squared_norm_interval", "norm_interval"};
    if (weigh_by_tokens) wanted.insert("debiased_squared_norm");
    EXPECT_EQ(absent, wanted);
  }
}

TEST(DifferenceInMeans, StoredSumsOfOtherBytesAreDataLoss) {
  LayerSums sums(/*width=*/3, /*weigh_by_tokens=*/true);
  ASSERT_EQ(sums.Add(std::vector<double>{1, 2, 3}, /*half=*/1, /*label=*/0, /*weight=*/4),
            absl::OkStatus());
  std::string bytes;
  sums.AppendTo(bytes);
  EXPECT_TRUE(LayerSums::Parse(bytes, 3, true).ok());
  EXPECT_EQ(LayerSums::Parse(bytes, 3, false).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(LayerSums::Parse(bytes, 4, true).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(LayerSums::Parse(absl::string_view(bytes).substr(1), 3, true).status().code(),
            absl::StatusCode::kDataLoss);
  std::string not_finite = bytes;
  std::fill(not_finite.end() - 8, not_finite.end(), '\xff');
  EXPECT_EQ(LayerSums::Parse(not_finite, 3, true).status().code(), absl::StatusCode::kDataLoss);
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

TEST(DifferenceInMeans, WhatTheDataCannotGiveIsAbsentAndSaysWhy) {
  DataSet data;
  data.width = 1;
  data.Append(true, "a", {1});
  data.Append(false, "a", {1});
  const LayerVector layer = data.Compute().layers[0];
  EXPECT_EQ(layer.norm, 0.0);
  EXPECT_FALSE(layer.split_half_cosine || layer.reliability || layer.auroc ||
               layer.debiased_squared_norm || layer.norm_interval || layer.squared_norm_interval ||
               layer.clustered_squared_norm || layer.expressing_covariance_trace);
  EXPECT_EQ(*layer.relative_norm, 0.0);
  EXPECT_EQ(AbsentOf(layer), (std::map<std::string, Absence>{
                                 {"expressing_covariance_trace", Absence::kOneResponse},
                                 {"non_expressing_covariance_trace", Absence::kOneResponse},
                                 {"debiased_squared_norm", Absence::kOneResponse},
                                 {"split_half_cosine", Absence::kOneQuery},
                                 {"reliability", Absence::kOneQuery},
                                 {"auroc", Absence::kOneQuery},
                                 {"clustered_squared_norm", Absence::kOneQuery},
                                 {"squared_norm_interval", Absence::kOneQuery},
                                 {"norm_interval", Absence::kOneQuery},
                             }));
}

TEST(DifferenceInMeans, DirectionsThatDoNotExistSayWhy) {
  DataSet zero;
  zero.width = 1;
  for (int q = 0; q < 8; ++q) zero.Append(q % 2 == 0, "", {0});
  EXPECT_EQ(AbsentOf(zero.Compute().layers[0]),
            (std::map<std::string, Absence>{{"relative_norm", Absence::kZeroActivations},
                                            {"split_half_cosine", Absence::kZeroVector},
                                            {"reliability", Absence::kZeroVector}}));
  DataSet opposite;
  opposite.width = 1;
  for (int q = 0; q < 8; ++q) {
    opposite.Append(q % 2 == 0, "", {q % 4 == 0 ? 1.0 : q % 4 == 2 ? -1.0 : 0.0});
  }
  EXPECT_EQ(AbsentOf(opposite.Compute().layers[0]),
            (std::map<std::string, Absence>{{"reliability", Absence::kOppositeHalves}}));
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
  EXPECT_EQ(error_field(good, {.weigh_by_tokens = true}), "responses[0].num_tokens");
  EXPECT_EQ(error_field(good, {.interval_level = 0.8}), "options.interval_level");
  EXPECT_EQ(error_field(good, {.interval_level = 1.0}), "options.interval_level");
  EXPECT_FALSE(ComputeDifferenceInMeans(good.Responses(), int64_t{1} << 40, int64_t{1} << 40).ok());
}

TEST(DifferenceInMeans, StopsWhenCancelled) {
  const DataSet data = RandomDataSet(/*num_queries=*/4, /*responses_a_query=*/2);
  Cancellation cancellation;
  cancellation.Cancel();
  const auto result =
      ComputeDifferenceInMeans(data.Responses(), data.num_layers, data.width, {}, cancellation);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace valuescope::analysis
