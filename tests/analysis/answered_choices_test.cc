#include "analysis/answered_choices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace valuescope::analysis {
namespace {

TEST(Softmax, IsSharesOfExponentials) {
  const std::vector<double> shares = Softmax(std::vector<double>{-1000, -1000 + std::log(3)});
  EXPECT_NEAR(shares[0], .25, 1e-12);
  EXPECT_NEAR(shares[1], .75, 1e-12);
}

// By hand, in two bins: (.6, .4) right, (.9, .1) wrong, (.5, .5) right as the first of equal ones.
TEST(AnsweredChoices, AreScoredAsByHand) {
  const std::vector<AnsweredChoice> questions = {{{.6, .4}, 0}, {{.9, .1}, 1}, {{.5, .5}, 0}};
  const ChoiceScores scores = ScoreChoices(questions, 2);
  EXPECT_DOUBLE_EQ(scores.accuracy, 2.0 / 3);
  EXPECT_NEAR(scores.mean_probability, (.6 + .1 + .5) / 3, 1e-15);
  EXPECT_NEAR(scores.brier_score, (2 * .16 + 2 * .81 + 2 * .25) / 3, 1e-15);
  // (0, .5] holds the last: |1 - .5| / 3. (.5, 1] holds two: |.5 - .75| 2 / 3.
  EXPECT_NEAR(scores.calibration_error, (.5 + .5) / 3, 1e-15);
}

TEST(AnsweredChoices, WhoIsCertainAndRightHasNoErrors) {
  const std::vector<AnsweredChoice> questions(7, {{0, 1, 0}, 1});
  const ChoiceScores scores = ScoreChoices(questions, 10);
  EXPECT_EQ(scores.accuracy, 1);
  EXPECT_EQ(scores.accuracy_interval.upper, 1);
  EXPECT_NEAR(scores.brier_score, 0, 1e-15);
  EXPECT_NEAR(scores.calibration_error, 0, 1e-15);
}

// Answers that are right as often as they say.
TEST(AnsweredChoices, WhoKnowsHowOftenItIsRightIsCalibrated) {
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<AnsweredChoice> questions;
  for (int i = 0; i < 200'000; ++i) {
    const double p = .5 + uniform(random) / 2;
    questions.push_back({{p, 1 - p}, uniform(random) < p ? 0 : 1});
  }
  EXPECT_LT(ScoreChoices(questions, 10).calibration_error, .01);
}

// A bin is closed above: what lies between two belongs to the lower.
TEST(AnsweredChoices, ABinHasItsUpperEnd) {
  const std::vector<AnsweredChoice> questions = {{{.5, .25, .25}, 0}, {{.75, .25, 0}, 1}};
  EXPECT_NEAR(ScoreChoices(questions, 2).calibration_error, (.5 + .75) / 2, 1e-15);
  EXPECT_NEAR(ScoreChoices(questions, 1).calibration_error, std::abs(1 - 1.25) / 2, 1e-15);
}

}  // namespace
}  // namespace valuescope::analysis
