#include "analysis/questionnaire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace valuescope::analysis {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::Pair;
using testing::UnorderedElementsAre;

const std::vector<double> kSix = {1, 2, 3, 4, 5, 6};
constexpr AnswerScale kScale = {.least = 1, .most = 6};

TEST(Questionnaire, UniformAnswersScoreTheMiddle) {
  const double answer = ExpectedNumber(std::vector<double>(6, 1.0 / 6), kSix);
  EXPECT_DOUBLE_EQ(answer, 3.5);
  EXPECT_DOUBLE_EQ(ItemScoreOf(std::vector<double>{answer, answer}, /*reverse=*/false, kScale),
                   3.5);
  EXPECT_DOUBLE_EQ(ItemScoreOf(std::vector<double>{answer}, /*reverse=*/true, kScale), 3.5);
}

// Whoever says the same label in both orders says k and 7 - k.
TEST(Questionnaire, OneLabelForEverythingScoresTheMiddleOverBothOrders) {
  for (const double label : kSix) {
    EXPECT_DOUBLE_EQ(ItemScoreOf(std::vector<double>{label, 7 - label}, false, kScale), 3.5);
  }
}

TEST(Questionnaire, AReversedItemCountsFromTheOtherEnd) {
  EXPECT_DOUBLE_EQ(ItemScoreOf(std::vector<double>{5.5, 4.5}, true, kScale), 2);
  EXPECT_DOUBLE_EQ(ItemScoreOf(std::vector<double>{-1}, true, {.least = -2, .most = 3}), 2);
}

// By hand: CO 4 and 2, SE 6, one item without value; MRAT is 13 / 4.
TEST(Questionnaire, ValuesAreMeansOfTheirItemsLessTheMeanOfAll) {
  const std::vector<ItemOfValue> items = {
      {"CO", 4, 5.0}, {"SE", 6, {}}, {"", 1, 2.0}, {"CO", 2, {}}};
  const QuestionnaireScores scores = ScoreQuestionnaire(items);
  EXPECT_DOUBLE_EQ(scores.mean, 3.25);
  ASSERT_EQ(scores.values.size(), 2u);
  const ScoreOfValue &co = scores.values[0], &se = scores.values[1];
  EXPECT_EQ(co.value, "CO");
  EXPECT_DOUBLE_EQ(co.score, 3);
  EXPECT_DOUBLE_EQ(co.centred, -.25);
  EXPECT_EQ(co.num_items, 2);
  EXPECT_DOUBLE_EQ(*co.standard_error, 1);
  EXPECT_DOUBLE_EQ(*co.text_score, 5);
  EXPECT_EQ(co.num_text_items, 1);
  EXPECT_EQ(se.value, "SE");
  EXPECT_DOUBLE_EQ(se.centred, 2.75);
  EXPECT_FALSE(se.standard_error.has_value());
  EXPECT_FALSE(se.text_score.has_value());
}

// Identity 9 of the method.
TEST(Questionnaire, CentredScoresTimesItemsSumToNothing) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> score(1, 6);
  for (const QuestionnaireKey key : {QuestionnaireKey::kPvq40, QuestionnaireKey::kPvqRr}) {
    std::vector<ItemOfValue> items;
    for (int item = 1; item <= NumItems(key); ++item) {
      items.push_back({std::string(ValueOfItem(key, item)), score(random), {}});
    }
    double sum = 0;
    for (const ScoreOfValue& value : ScoreQuestionnaire(items).values) {
      sum += value.num_items * value.centred;
    }
    EXPECT_NEAR(sum, 0, 1e-12 * NumItems(key));
  }
}

TEST(Questionnaire, TheMostFrequentLabelIsThatOfMostAnswers) {
  const std::vector<std::vector<double>> answers = {
      {.2, .5, .3}, {.4, .4, .2}, {.1, .8, .1}, {0, .6, .4}};
  EXPECT_DOUBLE_EQ(MostFrequentShare(answers, 3), .75);
  EXPECT_DOUBLE_EQ(MostFrequentShare(std::vector<std::vector<double>>(5, {.9, .1}), 2), 1);
}

// Items a value, as published: in the PVQ-40 two of three items and others of four to six, in the
// PVQ-RR three of each.
TEST(QuestionnaireKey, EveryItemHasOneValue) {
  const auto counts = [](QuestionnaireKey key) {
    std::map<std::string, int> counts;
    for (int item = 1; item <= NumItems(key); ++item) ++counts[std::string(ValueOfItem(key, item))];
    return counts;
  };
  EXPECT_THAT(counts(QuestionnaireKey::kPvq40),
              UnorderedElementsAre(Pair("CO", 4), Pair("TR", 4), Pair("BE", 4), Pair("UN", 6),
                                   Pair("SD", 4), Pair("ST", 3), Pair("HE", 3), Pair("AC", 4),
                                   Pair("PO", 3), Pair("SE", 5)));
  const std::map<std::string, int> refined = counts(QuestionnaireKey::kPvqRr);
  EXPECT_EQ(refined.size(), 19u);
  for (const auto& [value, count] : refined) EXPECT_EQ(count, 3) << value;
  EXPECT_EQ(ValueOfItem(QuestionnaireKey::kPvq40, 1), "SD");
  EXPECT_EQ(ValueOfItem(QuestionnaireKey::kPvq40, 40), "UN");
  EXPECT_EQ(ValueOfItem(QuestionnaireKey::kPvqRr, 57), "UNT");
}

}  // namespace
}  // namespace valuescope::analysis
