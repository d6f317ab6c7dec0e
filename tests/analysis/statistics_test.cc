#include "analysis/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <optional>
#include <random>
#include <vector>

namespace valuescope::analysis {
namespace {

double BruteForceAuroc(const std::vector<double>& positives, const std::vector<double>& negatives) {
  double wins = 0;
  for (const double p : positives) {
    for (const double n : negatives) wins += p > n ? 1.0 : p == n ? 0.5 : 0.0;
  }
  return wins / static_cast<double>(positives.size() * negatives.size());
}

TEST(AreaUnderRoc, EqualsCountingEveryPairTiesIncluded) {
  std::mt19937_64 random(5);
  for (int trial = 0; trial < 20; ++trial) {
    // Few distinct scores, so that ties are common.
    std::vector<double> positives(1 + trial);
    std::vector<double> negatives(13);
    for (double& x : positives) x = static_cast<double>(random() % 6);
    for (double& x : negatives) x = static_cast<double>(random() % 5);
    EXPECT_DOUBLE_EQ(*AreaUnderRoc(positives, negatives), BruteForceAuroc(positives, negatives));
  }
}

TEST(AreaUnderRoc, IsOneWhenSeparatedAHalfWhenTiedAndTurnsWithTheSign) {
  EXPECT_EQ(*AreaUnderRoc(std::vector<double>{2, 3}, std::vector<double>{0, 1}), 1.0);
  EXPECT_EQ(*AreaUnderRoc(std::vector<double>{0, 1}, std::vector<double>{2, 3}), 0.0);
  EXPECT_EQ(*AreaUnderRoc(std::vector<double>{1, 1}, std::vector<double>{1}), 0.5);
  EXPECT_FALSE(AreaUnderRoc({}, std::vector<double>{1}).has_value());
}

TEST(SpearmanBrown, DoublesTheLengthOfTheTest) {
  EXPECT_DOUBLE_EQ(*SpearmanBrown(0.5), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(*SpearmanBrown(1.0), 1.0);
  EXPECT_DOUBLE_EQ(*SpearmanBrown(0.0), 0.0);
  EXPECT_FALSE(SpearmanBrown(-1.0).has_value());
}

TEST(Quantile, InterpolatesBetweenSortedValues) {
  EXPECT_DOUBLE_EQ(*Quantile({40, 10, 30, 20}, 0.5), 25.0);
  EXPECT_DOUBLE_EQ(*Quantile({40, 10, 30, 20}, 0.1), 13.0);
  EXPECT_DOUBLE_EQ(*Quantile({40, 10, 30, 20}, 1.0), 40.0);
  EXPECT_FALSE(Quantile({}, 0.5).has_value());
}

// Where the distribution has a closed form, and of tables.
TEST(StudentQuantile, EqualsClosedFormsAndTables) {
  for (const double p : {0.51, 0.8, 0.95, 0.975, 0.9999}) {
    EXPECT_NEAR(StudentQuantile(p, 1) / std::tan(std::numbers::pi * (p - 0.5)), 1, 1e-11) << p;
    const double two = (2 * p - 1) / std::sqrt(2 * p * (1 - p));
    EXPECT_NEAR(StudentQuantile(p, 2) / two, 1, 1e-11) << p;
  }
  EXPECT_NEAR(StudentQuantile(0.975, 18), 2.10092204, 1e-8);
  EXPECT_NEAR(StudentQuantile(0.975, 1e7), 1.95996, 1e-5);
}

// The ends are where the score test of a proportion rejects: (share - p)^2 = z^2 p (1 - p) / n.
TEST(WilsonInterval, EndsWhereTheScoreTestRejects) {
  constexpr double kZ = 1.959963984540054;
  for (const auto& [successes, count] :
       {std::pair<double, double>{8, 10}, {.5, 3}, {150, 400}, {1, 1000}}) {
    const ConfidenceInterval bounds = WilsonInterval(successes, count);
    for (const double p : {bounds.lower, bounds.upper}) {
      const double miss = successes / count - p;
      EXPECT_NEAR(miss * miss, kZ * kZ * p * (1 - p) / count, 1e-12) << successes;
    }
    EXPECT_LT(bounds.lower, successes / count);
    EXPECT_GT(bounds.upper, successes / count);
  }
  EXPECT_EQ(WilsonInterval(0, 5).level, .95);
  EXPECT_EQ(WilsonInterval(0, 5).lower, 0);
  EXPECT_EQ(WilsonInterval(5, 5).upper, 1);
  EXPECT_NEAR(WilsonInterval(8, 10).lower, .4901625, 1e-7);
  EXPECT_NEAR(WilsonInterval(8, 10).upper, .9433178, 1e-7);
}

// Of a mean the jackknifed error is s / sqrt(n): the interval is Student's.
TEST(JackknifeInterval, OfAMeanIsStudents) {
  const std::vector<double> numbers = {1, 4, 2, 7, 3.5};
  double sum = 0, squares = 0;
  for (const double one : numbers) sum += one;
  const double mean = sum / 5;
  std::vector<std::optional<double>> without;
  for (const double one : numbers) {
    without.emplace_back((sum - one) / 4);
    squares += (one - mean) * (one - mean);
  }
  const auto interval = JackknifeInterval(mean, without);
  ASSERT_TRUE(interval.has_value());
  const double reach = 2.7764451051977987 * std::sqrt(squares / 4 / 5);  // t of 4 at .975
  EXPECT_NEAR(interval->lower, mean - reach, 1e-9);
  EXPECT_NEAR(interval->upper, mean + reach, 1e-9);
  EXPECT_EQ(interval->level, .95);
}

TEST(JackknifeInterval, NeedsThreeClustersAndEveryNumber) {
  EXPECT_FALSE(JackknifeInterval(1.0, {1.0, 2.0}).has_value());
  EXPECT_TRUE(JackknifeInterval(1.0, {1.0, 2.0, 3.0}).has_value());
  EXPECT_FALSE(JackknifeInterval(std::nullopt, {1.0, 2.0, 3.0}).has_value());
  EXPECT_FALSE(JackknifeInterval(1.0, {1.0, std::nullopt, 3.0}).has_value());
}

}  // namespace
}  // namespace valuescope::analysis
