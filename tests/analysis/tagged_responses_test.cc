#include "analysis/tagged_responses.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace valuescope::analysis {
namespace {

// By hand: the mean of the three that have weights is -4; value 0 has (.5 x 2 - 1 x -3) / 1.5,
// value 1 has (1 x -3 + 1 x 1) / 2.
TEST(TaggedResponses, ScoresAreWeightedDeviationsFromTheMean) {
  const std::vector<TaggedLogprob> responses = {
      {-2, {{0, .5}}}, {-7, {{0, -1}, {1, 1}}}, {-100, {}}, {-3, {{1, 1}}}};
  const std::vector<TaggedValue> values = ScoreTaggedResponses(responses, 2);
  EXPECT_NEAR(values[0].score, 4 / 1.5, 1e-14);
  EXPECT_NEAR(values[1].score, -1, 1e-14);
  EXPECT_NEAR(values[0].centred, (4 / 1.5 + 1) / 2, 1e-14);
  EXPECT_NEAR(values[1].centred, -(4 / 1.5 + 1) / 2, 1e-14);
  EXPECT_EQ(values[0].num_responses, 2);
  EXPECT_EQ(values[1].num_responses, 2);
}

// Whatever makes all responses likelier says nothing of values.
TEST(TaggedResponses, WeightsOfAnySizeCountByTheirShares) {
  const auto scores = [](double weight) {
    const std::vector<TaggedLogprob> responses = {
        {-2, {{0, weight}}}, {-7, {{0, weight}}}, {-4, {{0, -weight}}}};
    return ScoreTaggedResponses(responses, 1).front().score;
  };
  const double plain = scores(1);
  EXPECT_NE(plain, 0);
  for (const double weight : {1.7e308, 1e-300, 5e-324}) EXPECT_EQ(scores(weight), plain) << weight;
}

TEST(TaggedResponses, WhatMovesAllResponsesMovesNoScore) {
  std::vector<TaggedLogprob> responses = {{-2, {{0, .3}}}, {-7, {{1, -2}}}, {-3, {{0, 1}, {1, 1}}}};
  const std::vector<TaggedValue> before = ScoreTaggedResponses(responses, 2);
  for (TaggedLogprob& one : responses) one.logprob -= 8;
  const std::vector<TaggedValue> after = ScoreTaggedResponses(responses, 2);
  for (const size_t i : {0, 1}) EXPECT_NEAR(after[i].score, before[i].score, 1e-13);
}

TEST(MeanAndSpread, OfOneHasNoSpread) {
  EXPECT_EQ(MeanAndSpreadOf(std::vector<double>{3}).mean, 3);
  EXPECT_EQ(MeanAndSpreadOf(std::vector<double>{3}).spread, 0);
  const MeanAndSpread of = MeanAndSpreadOf(std::vector<double>{1, 2, 6});
  EXPECT_NEAR(of.mean, 3, 1e-15);
  EXPECT_NEAR(of.spread, std::sqrt(7), 1e-14);
}

}  // namespace
}  // namespace valuescope::analysis
