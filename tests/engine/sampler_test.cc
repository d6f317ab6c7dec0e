// Sampling: order and ranges of its options, the distribution it draws from, and that a draw
// depends on seed and index only.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "base/error.h"
#include "engine/logit_row.h"
#include "nlohmann/json.hpp"

namespace valuescope::engine {
namespace {

constexpr int kDraws = 20000;
constexpr int64_t kVocabulary = 1000;

Sampling Greedy() {
  Sampling sampling;
  sampling.temperature = 0;
  return sampling;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> result;
  for (const float logit : logits) result.push_back(std::exp(logit / temperature));
  const double sum = std::accumulate(result.begin(), result.end(), 0.0);
  for (double& each : result) each /= sum;
  return result;
}

// How often each token comes up over many seeds and a few indices.
std::map<int32_t, int> Counts(const std::vector<float>& logits, Sampling sampling,
                              const std::vector<int32_t>& seen = {}) {
  std::map<int32_t, int> counts;
  for (int draw = 0; draw < kDraws; ++draw) {
    sampling.seed = static_cast<uint64_t>(draw / 4);
    ++counts[SampleToken(logits, sampling, seen, draw % 4)];
  }
  return counts;
}

// Pearson's statistic of counts against probabilities.
double ChiSquare(const std::map<int32_t, int>& counts, const std::vector<double>& probabilities) {
  double statistic = 0;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    const auto found = counts.find(static_cast<int32_t>(id));
    const double observed = found == counts.end() ? 0 : found->second;
    const double expected = probabilities[id] * kDraws;
    if (expected == 0) {
      EXPECT_EQ(observed, 0) << "token " << id;
      continue;
    }
    statistic += (observed - expected) * (observed - expected) / expected;
  }
  return statistic;
}

// 99.99 % of the chi-square distribution with 5 degrees of freedom; fewer give smaller numbers.
constexpr double kLikely = 25.7;

const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 1.0f, 0.0f, 1.5f};

std::set<int32_t> Support(const std::map<int32_t, int>& counts) {
  std::set<int32_t> support;
  for (const auto& [id, count] : counts) support.insert(id);
  return support;
}

TEST(SampleToken, IsGreedyAtTemperatureZeroWithTiesToTheLowestId) {
  EXPECT_EQ(SampleToken(std::vector<float>{0, 3, 1, 3, 3}, Greedy(), {}, 0), 1);
  EXPECT_EQ(SampleToken(std::vector<float>{-2, -2, -2}, Greedy(), {}, 0), 0);
}

TEST(SampleToken, DrawsFromTheSoftmaxAtEveryTemperature) {
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    Sampling sampling;
    sampling.temperature = temperature;
    EXPECT_LT(ChiSquare(Counts(kLogits, sampling), Softmax(kLogits, temperature)), kLikely)
        << "temperature " << temperature;
  }
}

TEST(SampleToken, SurvivesLogitsThatWouldOverflowAnExponential) {
  Sampling sampling;
  EXPECT_EQ(SampleToken(std::vector<float>{3e38f, -3e38f, 0}, sampling, {}, 0), 0);
  const std::vector<float> shifted = {1000.5f, 1002, 999, 1001, 1000, 1001.5f};
  EXPECT_LT(ChiSquare(Counts(shifted, sampling), Softmax(kLogits, 1)), kLikely);
}

TEST(SampleToken, NeverDrawsATokenWithoutProbability) {
  const float never = -std::numeric_limits<float>::infinity();
  EXPECT_EQ(Support(Counts({0, never, 0, never}, Sampling())), (std::set<int32_t>{0, 2}));
}

TEST(SampleToken, TopKKeepsTheLikeliestAndTiesWithTheLastOfThem) {
  Sampling sampling;
  sampling.top_k = 2;
  EXPECT_EQ(Support(Counts(kLogits, sampling)), (std::set<int32_t>{1, 5}));
  EXPECT_EQ(Support(Counts({2, 1, 1, 0, 1}, sampling)), (std::set<int32_t>{0, 1, 2, 4}));
  sampling.top_k = 1000;
  EXPECT_LT(ChiSquare(Counts(kLogits, sampling), Softmax(kLogits, 1)), kLikely);
}

TEST(SampleToken, TopPKeepsTheSmallestSetThatReachesIt) {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.5f), std::log(0.15f),
                                     std::log(0.25f)};
  const std::map<float, std::set<int32_t>> expected = {
      {1e-6f, {1}}, {0.45f, {1}}, {0.6f, {1, 3}}, {0.8f, {1, 2, 3}}, {0.95f, {0, 1, 2, 3}}};
  for (const auto& [top_p, support] : expected) {
    Sampling sampling;
    sampling.top_p = top_p;
    EXPECT_EQ(Support(Counts(logits, sampling)), support) << "top_p " << top_p;
  }
  Sampling sampling;
  sampling.top_p = 0.6f;
  EXPECT_LT(ChiSquare(Counts(logits, sampling), {0, 2.0 / 3, 0, 1.0 / 3}), kLikely);
}

TEST(SampleToken, TopPFindsItsSetAmongManyTokensAlike) {
  // More than any first portion of a partial sort: 3000 tokens of equal mass, half of them wanted.
  const std::vector<float> logits(3000, 0.25f);
  Sampling sampling;
  sampling.top_p = 0.5f;
  int32_t lowest = 3000;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    sampling.seed = seed;
    lowest = std::min(lowest, SampleToken(logits, sampling, {}, 0));
  }
  EXPECT_GE(lowest, 1500);
  EXPECT_LT(lowest, 1600);
}

// What transformers' processors leave, made by tests/golden/make_sampling.py.
TEST(CandidatesOf, AreThoseThatTransformersLeaves) {
  std::ifstream file(VALUESCOPE_SOURCE_DIR "/tests/golden/sampling.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_GT(golden["cases"].size(), 200u);
  for (const nlohmann::json& entry : golden["cases"]) {
    SCOPED_TRACE(entry.dump());
    Sampling sampling;
    sampling.repetition_penalty = entry["repetition_penalty"];
    sampling.temperature = entry["temperature"];
    sampling.top_k = entry["top_k"];
    sampling.top_p = entry["top_p"];
    sampling.min_p = entry["min_p"];
    const auto logits = golden["rows"][entry["row"].get<std::string>()].get<std::vector<float>>();
    const Candidates kept = CandidatesOf(logits, sampling, entry["seen"]);
    std::map<int32_t, double> weights;
    for (size_t i = 0; i < kept.ids.size(); ++i) weights[kept.ids[i]] = kept.weights[i];
    std::vector<int32_t> ids;
    for (const auto& [id, weight] : weights) ids.push_back(id);
    ASSERT_EQ(ids, entry["kept"].get<std::vector<int32_t>>());
    const double sum = SumOf(kept.weights);
    for (size_t i = 0; i < ids.size(); ++i) {
      const double expected = entry["probabilities"][i];
      EXPECT_NEAR(weights[ids[i]] / sum, expected, 2e-5 * expected);
    }
  }
}

TEST(SampleToken, TopPIsAShareOfWhatTopKLeft) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f),
                                     std::log(0.1f)};
  Sampling sampling;
  sampling.top_k = 2;
  sampling.top_p = 0.5f;  // 0.4 of 0.7 is more than half
  EXPECT_EQ(Support(Counts(logits, sampling)), (std::set<int32_t>{0}));
}

TEST(SampleToken, MinPKeepsWhatIsLikelyBesideTheLikeliest) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f),
                                     std::log(0.05f)};
  Sampling sampling;
  sampling.min_p = 0.2f;  // of 0.5: 0.1
  EXPECT_EQ(Support(Counts(logits, sampling)), (std::set<int32_t>{0, 1, 2}));
  sampling.min_p = 0.99f;
  EXPECT_EQ(Support(Counts(logits, sampling)), (std::set<int32_t>{0}));
}

TEST(SampleToken, TemperatureComesBeforeTopP) {
  const std::vector<float> logits = {2, 1, 0};
  Sampling sampling;
  sampling.top_p = 0.6f;
  EXPECT_EQ(Support(Counts(logits, sampling)), (std::set<int32_t>{0}));
  sampling.temperature = 4;  // flat: 0.42, 0.33, 0.25
  EXPECT_EQ(Support(Counts(logits, sampling)), (std::set<int32_t>{0, 1}));
}

TEST(SampleToken, PenalisesRepetitionAsTransformersDoes) {
  Sampling sampling = Greedy();
  sampling.repetition_penalty = 2;
  // Positive logits are divided, negative ones multiplied, once however often a token was seen.
  EXPECT_EQ(SampleToken(std::vector<float>{3, 2, 0}, sampling, {0}, 0), 1);
  EXPECT_EQ(SampleToken(std::vector<float>{-1, -1.5f, -9}, sampling, {0}, 0), 1);
  EXPECT_EQ(SampleToken(std::vector<float>{3, 1, 0}, sampling, {0, 0, 0}, 0), 0);
  sampling.repetition_penalty = 0.5f;  // below 1 it rewards
  EXPECT_EQ(SampleToken(std::vector<float>{3, 2, 0}, sampling, {1}, 0), 1);
}

TEST(SampleToken, PenaltyChangesTheDistribution) {
  Sampling sampling;
  sampling.repetition_penalty = 1.5f;
  std::vector<float> penalised = kLogits;
  penalised[1] /= 1.5f;
  penalised[2] *= 1.5f;
  EXPECT_LT(ChiSquare(Counts(kLogits, sampling, {1, 2, 1}), Softmax(penalised, 1)), kLikely);
}

TEST(SampleToken, DependsOnSeedAndIndexOnly) {
  std::vector<float> logits(500);
  for (size_t id = 0; id < logits.size(); ++id) logits[id] = std::sin(static_cast<float>(id));
  Sampling sampling;
  sampling.seed = 42;
  std::set<int32_t> by_index, by_seed;
  for (int64_t index = 0; index < 50; ++index) {
    const int32_t token = SampleToken(logits, sampling, {}, index);
    EXPECT_EQ(SampleToken(logits, sampling, {}, index), token);
    by_index.insert(token);
  }
  for (uint64_t seed = 0; seed < 50; ++seed) {
    sampling.seed = seed;
    by_seed.insert(SampleToken(logits, sampling, {}, 0));
  }
  EXPECT_GT(by_index.size(), 30u);
  EXPECT_GT(by_seed.size(), 30u);
}

// Threads keep what they write while they draw.
TEST(SampleToken, DoesNotDependOnWhatItsThreadDrewBefore) {
  Sampling filtered{.temperature = 0.8f, .top_p = 0.9f, .top_k = 40, .repetition_penalty = 1.3f};
  const Sampling plain{.temperature = 1.2f};
  std::vector<std::vector<float>> rows;
  for (const size_t width : {5000, 7, 900}) {
    std::vector<float>& row = rows.emplace_back(width);
    for (size_t i = 0; i < width; ++i) row[i] = std::sin(static_cast<float>(i * i % 977));
  }
  for (const Sampling& sampling : {filtered, plain}) {
    for (const std::vector<float>& row : rows) {
      int32_t alone = -1;
      TokenLogprob scored;
      std::thread([&] {
        alone = SampleToken(row, sampling, {1, 5}, 3);
        scored = LogprobOf(row, alone, 5);
      }).join();
      EXPECT_EQ(SampleToken(row, sampling, {1, 5}, 3), alone);
      EXPECT_EQ(LogprobOf(row, alone, 5).logprob, scored.logprob);
      EXPECT_EQ(LogprobOf(row, alone, 5).top, scored.top);
    }
  }
}

// A row as wide as a real vocabulary: blocks, their remainder, and weights that vanish.
TEST(LogitRow, WeightsSumsAndPlacesEqualThoseOfDoublePrecision) {
  std::vector<float> logits(49155);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] =
        static_cast<float>(8 * std::sin(0.37 * static_cast<double>(i)) - (i % 7 == 0 ? 95 : 0));
  }
  logits[40001] = 9.5f;
  EXPECT_EQ(IndexOfLargest(logits), 40001);
  EXPECT_EQ(CheckFinite(logits), absl::OkStatus());
  for (const float temperature : {0.25f, 1.0f, 3.0f}) {
    std::vector<float> memory;
    const std::span<const float> weights = WeightsOf(logits, 9.5f, temperature, memory);
    double sum = 0;
    std::vector<double> running;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double exact = std::exp((static_cast<double>(logits[i]) - 9.5) / temperature);
      EXPECT_NEAR(weights[i], exact, 1e-5 * exact + 1e-37) << i;
      running.push_back(sum += exact);
    }
    EXPECT_NEAR(SumOf(weights) / sum, 1, 1e-6);
    if (temperature == 1.0f) {
      EXPECT_EQ(SumOfWeights(logits, 9.5f), SumOf(weights));
    }
    for (const double share : {0.0, 0.001, 0.3, 0.77, 0.9999}) {
      const size_t place = IndexOfSum(weights, share * SumOf(weights));
      EXPECT_GT(weights[place], 0);
      EXPECT_GE(running[place] / sum, share - 1e-6);
      EXPECT_LE(place == 0 ? 0 : running[place - 1] / sum, share + 1e-6);
    }
  }
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    logits[49154] = bad;
    EXPECT_FALSE(CheckFinite(logits).ok());
  }
}

TEST(LogitRow, LogSumExpEqualsThatOfDoublePrecision) {
  for (const size_t width : {1, 255, 49155}) {
    std::vector<float> logits(width), more(width);
    for (size_t i = 0; i < width; ++i) {
      logits[i] = static_cast<float>(8 * std::sin(0.37 * static_cast<double>(i)));
      more[i] = static_cast<float>(std::cos(0.11 * static_cast<double>(i)));
    }
    for (const float factor : {0.0f, -1e-3f, 2.5f, 200.0f}) {
      double largest = -1e300, sum = 0;
      const auto at = [&](size_t i) {
        return static_cast<double>(logits[i]) + static_cast<double>(factor) * more[i];
      };
      for (size_t i = 0; i < width; ++i) largest = std::max(largest, at(i));
      for (size_t i = 0; i < width; ++i) sum += std::exp(at(i) - largest);
      const double exact = largest + std::log(sum);
      EXPECT_NEAR(LogSumExp(logits, more, factor), exact, 1e-6 * (1 + std::abs(largest)));
    }
  }
}

TEST(LogitRow, NeverPlacesASumWhereThereIsNoWeight) {
  EXPECT_EQ(IndexOfSum(std::vector<float>{0, 1, 0, 0}, 1.0), 1u);
  EXPECT_EQ(IndexOfSum(std::vector<float>{0, 0, 1}, 0.0), 2u);
  EXPECT_EQ(IndexOfLargest(std::vector<float>{1, 3, 3, 2}), 1);
}

TEST(LogprobOf, EqualsTheLogarithmOfTheSoftmax) {
  const std::vector<double> probabilities = Softmax(kLogits, 1);
  for (size_t id = 0; id < kLogits.size(); ++id) {
    const TokenLogprob result = LogprobOf(kLogits, static_cast<int32_t>(id), 0);
    EXPECT_EQ(result.id, static_cast<int32_t>(id));
    EXPECT_NEAR(result.logprob, std::log(probabilities[id]), 1e-6);
    EXPECT_TRUE(result.top.empty());
  }
}

TEST(LogprobOf, ListsTheLikeliestInOrderWithTiesToTheLowestId) {
  const TokenLogprob result = LogprobOf(std::vector<float>{1, 3, 2, 3, 0}, 4, 3);
  ASSERT_EQ(result.top.size(), 3u);
  EXPECT_EQ(result.top[0].first, 1);
  EXPECT_EQ(result.top[1].first, 3);
  EXPECT_EQ(result.top[2].first, 2);
  EXPECT_EQ(result.top[0].second, result.top[1].second);
  EXPECT_EQ(LogprobOf(std::vector<float>{1, 2}, 0, 20).top.size(), 2u);
}

TEST(LogprobOf, StaysFiniteForLargeLogits) {
  const TokenLogprob result = LogprobOf(std::vector<float>{10000, 9999}, 1, 0);
  EXPECT_NEAR(result.logprob, -1.3132616875, 1e-5);
}

TEST(CheckSampling, TakesTheEndsOfEveryRange) {
  Sampling sampling;
  EXPECT_TRUE(CheckSampling(sampling, kVocabulary).ok());
  sampling.temperature = 100;
  sampling.top_p = 1e-9f;
  sampling.top_k = std::numeric_limits<int>::max();
  sampling.min_p = 1;
  sampling.repetition_penalty = 0.01f;
  sampling.stop.assign(16, "stop");
  sampling.stop_token_ids.assign(256, kVocabulary - 1);
  EXPECT_TRUE(CheckSampling(sampling, kVocabulary).ok());
  sampling.stop.assign(16, std::string(4096, 's'));
  EXPECT_TRUE(CheckSampling(sampling, kVocabulary).ok());
}

TEST(CheckSampling, NamesTheFieldThatIsOutOfRange) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const auto field_of = [](const auto& change) {
    Sampling sampling;
    change(sampling);
    const absl::Status status = CheckSampling(sampling, kVocabulary);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return DetailsOf(status).field;
  };
  for (const float bad : {-0.1f, 100.1f, nan, infinity}) {
    EXPECT_EQ(field_of([&](Sampling& s) { s.temperature = bad; }), "temperature") << bad;
  }
  for (const float bad : {0.0f, -1.0f, 1.01f, nan, infinity}) {
    EXPECT_EQ(field_of([&](Sampling& s) { s.top_p = bad; }), "top_p") << bad;
  }
  EXPECT_EQ(field_of([](Sampling& s) { s.top_k = -1; }), "top_k");
  EXPECT_EQ(field_of([](Sampling& s) { s.stop = {std::string(65536, 's'), "t"}; }), "stop");
  for (const float bad : {-0.1f, 1.1f, nan}) {
    EXPECT_EQ(field_of([&](Sampling& s) { s.min_p = bad; }), "min_p") << bad;
  }
  for (const float bad : {0.0f, -1.0f, nan, infinity}) {
    EXPECT_EQ(field_of([&](Sampling& s) { s.repetition_penalty = bad; }), "repetition_penalty")
        << bad;
  }
  EXPECT_EQ(field_of([](Sampling& s) { s.stop.assign(17, "x"); }), "stop");
  EXPECT_EQ(field_of([](Sampling& s) { s.stop = {"x", ""}; }), "stop[1]");
  for (const std::vector<int32_t>& bad :
       {std::vector<int32_t>{-1}, std::vector<int32_t>{1, kVocabulary},
        std::vector<int32_t>(257)}) {
    EXPECT_EQ(field_of([&](Sampling& s) { s.stop_token_ids = bad; }), "stop_token_ids");
  }
}

}  // namespace
}  // namespace valuescope::engine
