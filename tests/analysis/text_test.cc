// Diversity of token sequences.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "analysis/diversity.h"
#include "base/error.h"

namespace valuescope::analysis {
namespace {

using Responses = std::vector<std::vector<int32_t>>;

std::vector<TokenSpan> SpansOf(const Responses& responses) {
  return {responses.begin(), responses.end()};
}

NgramDiversity MustCompute(const Responses& responses, int n, int64_t v) {
  auto result = ComputeNgramDiversity(SpansOf(responses), n, v);
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
  EXPECT_DOUBLE_EQ(*bigrams.entropy, 0.5 * 1 + 0.5 * 2);
}

TEST(NgramDiversity, NgramsNeverCrossResponses) {
  const NgramDiversity split = MustCompute({{1, 2}, {3, 4}, {5}}, 2, 100);
  EXPECT_EQ(split.num_ngrams, 2);
  EXPECT_EQ(MustCompute({{1, 2, 3, 4, 5}}, 2, 100).num_ngrams, 4);
}

TEST(NgramDiversity, AdjustedIsAtLeastDistinctAndKeepsItsDigitsForLargeVocabularies) {
  std::mt19937_64 random(9);
  Responses responses(5);
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
  EXPECT_NEAR(*all.entropy, 3, 1e-14);
  EXPECT_EQ(*MustCompute({{7, 7, 7}}, 1, 1000).entropy, 0.0);
}

TEST(NgramDiversity, NothingToCountHasNoRatio) {
  const NgramDiversity none = MustCompute({{1}, {}}, 2, 10);
  EXPECT_EQ(none.num_ngrams, 0);
  EXPECT_FALSE(none.distinct || none.expectation_adjusted || none.entropy);
  EXPECT_EQ(DetailsOf(ComputeNgramDiversity({}, 0, 10).status()).field, "n");
  EXPECT_EQ(DetailsOf(ComputeNgramDiversity({}, 2, 0).status()).field, "vocabulary_size");
}

// nltk 3.10.0: sentence_bleu(all others, text, weights=[1 / m] * m, smoothing_function=method2)
// with m = min(4, len(text)), the mean over the texts.
TEST(SelfBleu, IsThatOfNltk) {
  const Responses texts = {{1, 2, 3, 4, 5, 6}, {1, 2, 3, 9}, {7, 7, 2, 3, 4, 5, 5}, {8}, {1, 2},
                           {20, 21, 22}};
  EXPECT_NEAR(*SelfBleu(SpansOf(texts)), 0.46301426073634627, 1e-15);
  Responses repetitive(12);
  for (int i = 0; i < 12; ++i) {
    for (int j = 0; j < 1 + i * 5 % 13; ++j) {
      repetitive[static_cast<size_t>(i)].push_back((i * i * 7 + i * j * 3 + j) % 11);
    }
  }
  EXPECT_NEAR(*SelfBleu(SpansOf(repetitive)), 0.31855532078183485, 1e-15);
}

using Counts = std::map<std::vector<int32_t>, int64_t>;

Counts CountsOf(const std::vector<int32_t>& text, size_t n) {
  Counts counts;
  for (size_t i = 0; i + n <= text.size(); ++i) {
    ++counts[{text.begin() + static_cast<int64_t>(i), text.begin() + static_cast<int64_t>(i + n)}];
  }
  return counts;
}

// As it is defined: every text against every other.
double BleuOfOne(const Responses& texts, size_t own) {
  const std::vector<int32_t>& text = texts[own];
  const size_t orders = std::min<size_t>(4, text.size());
  double sum = 0;
  for (size_t n = 1; n <= orders; ++n) {
    int64_t matches = 0;
    for (const auto& [ngram, count] : CountsOf(text, n)) {
      int64_t most = 0;
      for (size_t other = 0; other < texts.size(); ++other) {
        if (other == own) continue;
        const Counts there = CountsOf(texts[other], n);
        const auto found = there.find(ngram);
        if (found != there.end()) most = std::max(most, found->second);
      }
      matches += std::min(count, most);
    }
    const double add = n > 1;
    sum += std::log((static_cast<double>(matches) + add) /
                    (static_cast<double>(text.size() - n + 1) + add));
  }
  double closest = HUGE_VAL;
  const auto length = static_cast<double>(text.size());
  for (size_t other = 0; other < texts.size(); ++other) {
    const auto there = static_cast<double>(texts[other].size());
    if (other == own) continue;
    const double distance = std::abs(there - length), best = std::abs(closest - length);
    if (distance < best || (distance == best && there < closest)) closest = there;
  }
  return std::exp(std::min(0.0, 1 - closest / length)) *
         std::exp(sum / static_cast<double>(orders));
}

TEST(SelfBleu, ByTheTwoLargestCountsIsThatOfEveryPair) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 60; ++round) {
    Responses texts(2 + random() % 12);
    for (std::vector<int32_t>& text : texts) {
      text.resize(1 + random() % 14);
      for (int32_t& id : text) id = static_cast<int32_t>(random() % (2 + round % 5));
    }
    double sum = 0;
    for (size_t i = 0; i < texts.size(); ++i) sum += BleuOfOne(texts, i);
    ASSERT_NEAR(*SelfBleu(SpansOf(texts)), sum / static_cast<double>(texts.size()), 1e-13) << round;
  }
}

TEST(SelfBleu, EqualTextsHaveOneHoweverShortAndOneTextHasNone) {
  EXPECT_DOUBLE_EQ(*SelfBleu(SpansOf({{4}, {4}})), 1);
  EXPECT_DOUBLE_EQ(*SelfBleu(SpansOf({{4, 5}, {4, 5}, {4, 5}})), 1);
  EXPECT_EQ(*SelfBleu(SpansOf({{4}, {5}})), 0);
  EXPECT_FALSE(SelfBleu(SpansOf({{4, 5}})));
  EXPECT_FALSE(SelfBleu({}));
}

TEST(IsCoherent, WhatRepeatsATokenOrAPairIsNot) {
  using Ids = std::vector<int32_t>;
  EXPECT_TRUE(IsCoherent(Ids{}));
  EXPECT_TRUE(IsCoherent(Ids(kFewestRepeated - 1, 5)));
  EXPECT_FALSE(IsCoherent(Ids(kFewestRepeated, 5)));
  EXPECT_TRUE(IsCoherent(Ids{5, 5, 5, 5, 1, 2, 3, 4}));  // half is not more than half
  EXPECT_FALSE(IsCoherent(Ids{5, 1, 5, 2, 5, 3, 5, 4, 5}));
  EXPECT_FALSE(IsCoherent(Ids{1, 2, 1, 2, 1, 2, 1, 2}));  // four of seven pairs
  EXPECT_TRUE(IsCoherent(Ids{1, 2, 1, 2, 1, 2, 3, 4}));   // three of seven
  EXPECT_TRUE(IsCoherent(Ids{1, 2, 3, 1, 2, 3, 1, 2, 3}));
}

}  // namespace
}  // namespace valuescope::analysis
