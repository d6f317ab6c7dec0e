// Differences between two ways of answering the same queries, held against all resamples of small
// samples, and intervals against simulated truth.
#include "analysis/paired_differences.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <vector>

namespace valuescope::analysis {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

std::vector<PairedCluster> Differing(const std::vector<double>& differences) {
  std::vector<PairedCluster> clusters;
  for (const double one : differences) {
    clusters.push_back(
        {.first_sum = 1 + one, .first_count = 1, .second_sum = 1, .second_count = 1});
  }
  return clusters;
}

TEST(PairedDifferencesTest, MeanIsOverAnswersAndNotOverQueries) {
  const std::vector<PairedCluster> clusters = {
      {.first_sum = 3, .first_count = 3, .second_sum = 0, .second_count = 1},
      {.first_sum = 0, .first_count = 1, .second_sum = 1, .second_count = 1}};
  EXPECT_DOUBLE_EQ(*MeanDifference(clusters), 3.0 / 4 - 1.0 / 2);
  EXPECT_FALSE(MeanDifference({}).has_value());
}

TEST(PairedDifferencesTest, IntervalIsThatOfAllResamples) {
  const std::vector<double> differences = {.1, -.4, .7, 1.1, .2};
  std::vector<double> means;
  for (int code = 0; code < 3125; ++code) {
    double sum = 0;
    for (int i = 0, rest = code; i < 5; ++i, rest /= 5) {
      sum += differences[static_cast<size_t>(rest % 5)];
    }
    means.push_back(sum / 5);
  }
  const auto interval =
      BootstrapDifference(Differing(differences), {.draws = 200'000, .seed = 7}, {});
  ASSERT_TRUE(interval.ok() && interval->has_value());
  EXPECT_NEAR((*interval)->lower, *Quantile(means, .025), .01);
  EXPECT_NEAR((*interval)->upper, *Quantile(means, .975), .01);
}

TEST(PairedDifferencesTest, IntervalsHoldTheTruthAsOftenAsTheySay) {
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  constexpr int kTrials = 400;
  int held = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    // Answers of one query share what is its own, so that they tell less than as many queries.
    std::vector<PairedCluster> clusters(60);
    for (PairedCluster& cluster : clusters) {
      const double own = .5 + normal(random);
      for (int answer = 0; answer < 3; ++answer) {
        cluster.first_sum += own + .3 * normal(random);
        ++cluster.first_count;
        cluster.second_sum += .3 * normal(random);
        ++cluster.second_count;
      }
    }
    const auto interval =
        BootstrapDifference(clusters, {.draws = 400, .seed = static_cast<uint64_t>(trial)}, {});
    held += (*interval)->lower <= .5 && .5 <= (*interval)->upper;
  }
  // Four standard errors about .95, and what a percentile bootstrap of 60 falls short of it.
  EXPECT_GT(held, kTrials * (.935 - 4 * std::sqrt(.95 * .05 / kTrials)));
  EXPECT_LT(held, kTrials);
}

TEST(PairedDifferencesTest, PValueIsThatOfAllSignFlips) {
  const std::vector<double> differences = {.1, -.4, .7, 1.1, .2, .9};
  double observed = 0;
  for (const double one : differences) observed += one;
  int as_large = 0;
  for (int signs = 0; signs < 64; ++signs) {
    double sum = 0;
    for (int i = 0; i < 6; ++i) {
      sum += (signs >> i & 1) != 0 ? -differences[static_cast<size_t>(i)]
                                   : differences[static_cast<size_t>(i)];
    }
    as_large += std::abs(sum) >= std::abs(observed) - 1e-12;
  }
  const auto p = SignFlipPValue(Differing(differences), {.draws = 100'000, .seed = 3}, {});
  ASSERT_TRUE(p.ok() && p->has_value());
  EXPECT_NEAR(**p, as_large / 64.0, .005);
}

TEST(PairedDifferencesTest, WithoutAnyDifferenceNothingIsFound) {
  const auto p = SignFlipPValue(Differing({0, 1e-15, -2e-16}), {.draws = 100, .seed = 3}, {});
  ASSERT_TRUE(p.ok() && p->has_value());
  EXPECT_EQ(**p, 1);
  EXPECT_FALSE(SignFlipPValue({}, {.draws = 100, .seed = 3}, {})->has_value());
}

TEST(PairedDifferencesTest, HolmIsAsInHisExample) {
  EXPECT_THAT(HolmAdjusted(std::vector<double>{.01, .04, .03, .005}),
              ElementsAre(DoubleNear(.03, 1e-12), DoubleNear(.06, 1e-12), DoubleNear(.06, 1e-12),
                          DoubleNear(.02, 1e-12)));
  EXPECT_THAT(HolmAdjusted(std::vector<double>{.9, .8}), ElementsAre(1, 1));
}

// --- Distinct-n ----------------------------------------------------------------------------------

using Texts = std::vector<std::vector<std::vector<int32_t>>>;  // by query

std::vector<ClusterTexts> SpansOf(const Texts& texts) {
  std::vector<ClusterTexts> spans;
  for (const auto& of_query : texts) {
    ClusterTexts& cluster = spans.emplace_back();
    for (const std::vector<int32_t>& text : of_query) cluster.emplace_back(text);
  }
  return spans;
}

// Distinct-2 of all queries but one, counted anew.
double DistinctWithout(const Texts& texts, size_t left_out) {
  std::set<std::pair<int32_t, int32_t>> distinct;
  double count = 0;
  for (size_t q = 0; q < texts.size(); ++q) {
    if (q == left_out) continue;
    for (const std::vector<int32_t>& text : texts[q]) {
      for (size_t i = 0; i + 1 < text.size(); ++i, ++count) distinct.insert({text[i], text[i + 1]});
    }
  }
  return static_cast<double>(distinct.size()) / count;
}

Texts Draw(int vocabulary, uint64_t seed) {
  std::mt19937_64 random(seed);
  Texts texts(12);
  for (auto& of_query : texts) {
    of_query.resize(2);
    for (std::vector<int32_t>& text : of_query) {
      text.resize(5 + random() % 5);
      for (int32_t& id : text)
        id = static_cast<int32_t>(random() % static_cast<uint64_t>(vocabulary));
    }
  }
  return texts;
}

TEST(PairedDifferencesTest, JackknifeLeavesEachQueryOutOnce) {
  const Texts first = Draw(20, 1), second = Draw(6, 2);
  const auto found = JackknifeDiversity(SpansOf(first), SpansOf(second), 2, 1000);
  ASSERT_TRUE(found.ok());
  const double whole =
      DistinctWithout(first, first.size()) - DistinctWithout(second, second.size());
  EXPECT_DOUBLE_EQ(*found->distinct, whole);
  std::vector<double> without;
  double mean = 0, squares = 0;
  for (size_t q = 0; q < first.size(); ++q) {
    without.push_back(DistinctWithout(first, q) - DistinctWithout(second, q));
    mean += without.back() / static_cast<double>(first.size());
  }
  for (const double one : without) squares += (one - mean) * (one - mean);
  const double reach =
      2.200985160082949 * std::sqrt(11.0 / 12 * squares);  // scipy: t.ppf(.975, 11)
  EXPECT_NEAR(found->distinct_interval->lower, whole - reach, 1e-9);
  EXPECT_NEAR(found->distinct_interval->upper, whole + reach, 1e-9);
  EXPECT_GT(*found->expectation_adjusted, *found->distinct * .9);
}

TEST(PairedDifferencesTest, TextsWithoutNgramsHaveNoDiversity) {
  const Texts empty(12, {{}});
  const Texts drawn = Draw(6, 2);
  const auto found = JackknifeDiversity(SpansOf(empty), SpansOf(drawn), 2, 1000);
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->distinct.has_value());
  EXPECT_FALSE(found->distinct_interval.has_value());
}

}  // namespace
}  // namespace valuescope::analysis
