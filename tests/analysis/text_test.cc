// Diversity of token sequences.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "analysis/diversity.h"
#include "base/error.h"

namespace valuescope::analysis {
namespace {

NgramDiversity MustCompute(const std::vector<std::vector<int32_t>>& responses, int n, int64_t v) {
  auto result = ComputeNgramDiversity(responses, n, v);
  EXPECT_TRUE(result.ok()) << result.status();
  return *result;
}

TEST(NgramDiversity, CountsDistinctOverAll) {
  // Bigrams: 12 21 12 23.
  const NgramDiversity bigrams = MustCompute({{1, 2, 1, 2, 3}}, 2, 10);
  EXPECT_EQ(bigrams.num_ngrams, 4);
  EXPECT_EQ(bigrams.num_distinct, 3);
  EXPECT_DOUBLE_EQ(*bigrams.distinct, 0.75);
  EXPECT_DOUBLE_EQ(*bigrams.expectation_adjusted, 3 / (10 * (1 - std::pow(0.9, 4))));
  EXPECT_DOUBLE_EQ(*bigrams.entropy, 0.5 * std::log(2) + 0.5 * std::log(4));
}

TEST(NgramDiversity, NgramsNeverCrossResponses) {
  const NgramDiversity split = MustCompute({{1, 2}, {3, 4}, {5}}, 2, 100);
  EXPECT_EQ(split.num_ngrams, 2);
  EXPECT_EQ(MustCompute({{1, 2, 3, 4, 5}}, 2, 100).num_ngrams, 4);
}

TEST(NgramDiversity, AdjustedIsAtLeastDistinctAndKeepsItsDigitsForLargeVocabularies) {
  std::mt19937_64 random(9);
  std::vector<std::vector<int32_t>> responses(5);
  for (auto& response : responses) {
    for (int i = 0; i < 40; ++i) response.push_back(static_cast<int32_t>(random() % 30));
  }
  for (const int64_t v :
       {int64_t{1}, int64_t{2}, int64_t{50000}, int64_t{1} << 40, int64_t{1} << 62}) {
    for (const int n : {1, 2, 3}) {
      const NgramDiversity diversity = MustCompute(responses, n, v);
      EXPECT_GE(*diversity.expectation_adjusted, *diversity.distinct * (1 - 1e-15)) << v;
    }
  }
  // V (1 - (1 - 1/V)^C) = C - C (C - 1) / (2 V) + ..., so with V = 2^40 the two agree to 1e-10; the
  // formula as written would be wrong in the fifth digit.
  const NgramDiversity large = MustCompute(responses, 1, int64_t{1} << 40);
  const double c = static_cast<double>(large.num_ngrams);
  const double first_order = *large.distinct * (1 + (c - 1) / (2 * std::pow(2.0, 40)));
  EXPECT_NEAR(*large.expectation_adjusted / first_order, 1, 1e-14);
}

TEST(NgramDiversity, AllDifferentIsMostDiverse) {
  const NgramDiversity all = MustCompute({{1, 2, 3, 4, 5, 6, 7, 8}}, 1, 1000);
  EXPECT_DOUBLE_EQ(*all.distinct, 1.0);
  EXPECT_NEAR(*all.entropy, std::log(8), 1e-14);
  EXPECT_EQ(*MustCompute({{7, 7, 7}}, 1, 1000).entropy, 0.0);
}

TEST(NgramDiversity, NothingToCountHasNoRatio) {
  const NgramDiversity none = MustCompute({{1}, {}}, 2, 10);
  EXPECT_EQ(none.num_ngrams, 0);
  EXPECT_FALSE(none.distinct || none.expectation_adjusted || none.entropy);
  EXPECT_EQ(DetailsOf(ComputeNgramDiversity({}, 0, 10).status()).field, "n");
  EXPECT_EQ(DetailsOf(ComputeNgramDiversity({}, 2, 0).status()).field, "vocabulary_size");
}

}  // namespace
}  // namespace valuescope::analysis
