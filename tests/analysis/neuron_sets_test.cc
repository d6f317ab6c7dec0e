// Overlaps of neuron sets, and how selective neurons are among values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "analysis/activation_selectivity.h"
#include "analysis/neuron_overlap.h"
#include "analysis/statistics.h"
#include "base/error.h"

namespace valuescope::analysis {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;

using Neurons = std::vector<int64_t>;
using Probabilities = std::vector<std::vector<double>>;  // [values][neurons]

TEST(NeuronOverlap, CountsWhatBothHaveAndWhatEitherHas) {
  const NeuronOverlap overlap = OverlapOf(Neurons{0, 3, 4, 9}, Neurons{3, 5, 9}, 10);
  EXPECT_EQ(overlap.intersection, 2);
  EXPECT_EQ(overlap.union_size, 5);
  EXPECT_DOUBLE_EQ(*overlap.Jaccard(), 0.4);
  EXPECT_DOUBLE_EQ(overlap.expected_intersection, 1.2);
}

TEST(NeuronOverlap, AnEmptySetHasNothingInCommonAndTwoHaveNoJaccard) {
  const NeuronOverlap one = OverlapOf(Neurons{1, 2}, Neurons{}, 4);
  EXPECT_EQ(one.intersection, 0);
  EXPECT_EQ(*one.Jaccard(), 0);
  EXPECT_EQ(one.expected_intersection, 0);
  EXPECT_FALSE(OverlapOf(Neurons{}, Neurons{}, 4).Jaccard().has_value());
}

TEST(NeuronOverlap, LayersAddUp) {
  NeuronOverlap all = OverlapOf(Neurons{0, 1}, Neurons{1, 2}, 4);
  all.Add(OverlapOf(Neurons{5}, Neurons{5}, 8));
  EXPECT_EQ(all.intersection, 2);
  EXPECT_EQ(all.union_size, 4);
  EXPECT_DOUBLE_EQ(*all.Jaccard(), 0.5);
  EXPECT_DOUBLE_EQ(all.expected_intersection, 4.0 / 4 + 1.0 / 8);
}

TEST(NeuronOverlap, OfRandomSetsIsAsExpectedOnAverage) {
  std::mt19937_64 random(3);
  Neurons all(40);
  std::iota(all.begin(), all.end(), 0);
  const auto draw = [&](size_t count) {
    std::shuffle(all.begin(), all.end(), random);
    const std::set<int64_t> drawn(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(count));
    return Neurons(drawn.begin(), drawn.end());
  };
  constexpr int kDraws = 4000;
  double sum = 0, expected = 0;
  for (int i = 0; i < kDraws; ++i) {
    const NeuronOverlap overlap = OverlapOf(draw(12), draw(20), 40);
    sum += static_cast<double>(overlap.intersection);
    expected = overlap.expected_intersection;
  }
  // The hypergeometric variance, and five standard errors of the mean.
  const double variance = 12.0 * 20 * 28 * 20 / (40.0 * 40 * 39);
  EXPECT_NEAR(sum / kDraws, expected, 5 * std::sqrt(variance / kDraws));
}

TEST(CountOfPercent, IsTheFloorButAtLeastOne) {
  EXPECT_EQ(CountOfPercent(29, 100), 29);
  EXPECT_EQ(CountOfPercent(1, 99), 1);
  EXPECT_EQ(CountOfPercent(1.5, 199), 2);
  EXPECT_EQ(CountOfPercent(100, 7), 7);
}

// Neurons: of one value alone, of both alike, never active, three to one.
const Probabilities kFour = {{0.5, 0.25, 0, 0.75}, {0, 0.25, 0, 0.25}};

ActivationSelectivity MustScore(const Probabilities& probabilities,
                                const SelectivityOptions& options) {
  auto scored = ScoreSelectivity(probabilities, options);
  EXPECT_TRUE(scored.ok()) << scored.status();
  return *std::move(scored);
}

TEST(ScoreSelectivity, IsWhatTheEntropyLacksOfItsLargest) {
  const ActivationSelectivity scored =
      MustScore(kFour, {.activity_percentile = 0, .top_percent = 100});
  const double of_three_to_one = -0.75 * std::log(0.75) - 0.25 * std::log(0.25);
  EXPECT_THAT(scored.scores, ElementsAre(DoubleEq(std::log(2)), testing::DoubleNear(0, 1e-15), 0,
                                         DoubleEq(std::log(2) - of_three_to_one)));
  // The lowest entropy first; what is never active is no member.
  EXPECT_THAT(scored.members, ElementsAre(0, 3, 1));
  EXPECT_THAT(scored.values, ElementsAre(1, 3, 0, 3));
  EXPECT_EQ(scored.activity_threshold, 0);
}

TEST(ScoreSelectivity, MembersReachThePercentileForSomeValue) {
  // Sorted: 0 0 0 .25 .25 .25 .5 .75; a place of .8 x 7 = 5.6 lies between .25 and .5.
  const ActivationSelectivity scored =
      MustScore(kFour, {.activity_percentile = 80, .top_percent = 100});
  EXPECT_DOUBLE_EQ(scored.activity_threshold, 0.25 + 0.6 * 0.25);
  EXPECT_THAT(scored.values, ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(scored.members, ElementsAre(0, 3));
  // One that is exactly there is active enough.
  EXPECT_THAT(MustScore(kFour, {.activity_percentile = 100, .top_percent = 100}).members,
              ElementsAre(3));
}

TEST(ScoreSelectivity, KeepsThePercentageOfAllNeuronsTiesByIndex) {
  const Probabilities alike = {std::vector<double>(8, 0.5), std::vector<double>(8, 0)};
  const auto members = [&](double percent) {
    return MustScore(alike, {.activity_percentile = 0, .top_percent = percent}).members;
  };
  EXPECT_THAT(members(1), ElementsAre(0));
  EXPECT_THAT(members(26), ElementsAre(0, 1));
  EXPECT_THAT(members(50), ElementsAre(0, 1, 2, 3));
}

TEST(ScoreSelectivity, NeuronsThatAreNeverActiveHaveNoScoreAndNoMember) {
  const ActivationSelectivity scored =
      MustScore({{0, 0}, {0, 0}, {0, 0}}, {.activity_percentile = 95, .top_percent = 100});
  EXPECT_THAT(scored.scores, ElementsAre(0, 0));
  EXPECT_THAT(scored.values, ElementsAre(0, 0));
  EXPECT_TRUE(scored.members.empty());
}

TEST(ScoreSelectivity, TheLastOfSixtyFourValuesHasItsBit) {
  Probabilities probabilities(64, {0.0});
  probabilities[63] = {1.0};
  const ActivationSelectivity scored =
      MustScore(probabilities, {.activity_percentile = 100, .top_percent = 100});
  EXPECT_THAT(scored.values, ElementsAre(uint64_t{1} << 63));
  EXPECT_DOUBLE_EQ(scored.scores[0], std::log(64));
}

TEST(ScoreSelectivity, TheOrderOfValuesChangesNoScore) {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> uniform;
  Probabilities probabilities(3, std::vector<double>(50));
  for (auto& values : probabilities) {
    for (double& p : values) p = uniform(random);
  }
  const ActivationSelectivity scored = MustScore(probabilities, {.top_percent = 20});
  std::rotate(probabilities.begin(), probabilities.begin() + 1, probabilities.end());
  const ActivationSelectivity rotated = MustScore(probabilities, {.top_percent = 20});
  EXPECT_EQ(rotated.activity_threshold, scored.activity_threshold);
  EXPECT_EQ(rotated.members, scored.members);
  for (size_t i = 0; i < scored.scores.size(); ++i) {
    EXPECT_NEAR(rotated.scores[i], scored.scores[i], 1e-15);
    EXPECT_EQ(rotated.values[i], (scored.values[i] >> 1) | ((scored.values[i] & 1) << 2));
  }
}

TEST(ScoreSelectivity, BadInputIsRefusedByName) {
  const auto field = [](const Probabilities& probabilities, SelectivityOptions options = {}) {
    return DetailsOf(ScoreSelectivity(probabilities, options).status()).field;
  };
  EXPECT_EQ(field({{0.5}}), "probabilities");
  EXPECT_EQ(field(Probabilities(65, {0.5})), "probabilities");
  EXPECT_EQ(field({{0.5}, {1.5}}), "probabilities[1]");
  EXPECT_EQ(field({{-0.1}, {0.5}}), "probabilities[0]");
  EXPECT_EQ(field({{0.5}, {NAN}}), "probabilities[1]");
  EXPECT_EQ(field({{0.5}, {0.5, 0.5}}), "probabilities[1]");
  EXPECT_EQ(field({{}, {}}), "probabilities[0]");
  for (const double bad : {-1.0, 101.0, std::nan("")}) {
    EXPECT_EQ(field(kFour, {.activity_percentile = bad}), "activity_percentile");
  }
  for (const double bad : {0.0, 101.0, std::nan("")}) {
    EXPECT_EQ(field(kFour, {.top_percent = bad}), "top_percent");
  }
}

}  // namespace
}  // namespace valuescope::analysis
