// Which responses a vector is made of, where several are made of the same ones.
#include "studies/response_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace valuescope::studies {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int kLastValue = kMostValues - 1;

// A response of `tokens`, none of which is left where there are none; labels of values 0 and
// kLastValue: -1 is none.
LabelledResponse Response(std::vector<int32_t> tokens, int first, int last, int condition,
                          std::string query = "") {
  LabelledResponse response{.prompt = {9}, .response = std::move(tokens)};
  response.query_id = std::move(query);
  response.labels.condition = condition;
  const auto set = [&response](int value, int label) {
    if (label < 0) return;
    response.labels.known |= uint64_t{1} << value;
    if (label == 1) response.labels.expressed |= uint64_t{1} << value;
  };
  set(0, first);
  set(kLastValue, last);
  return response;
}

ResponseSet Trimmed(std::vector<LabelledResponse> responses) {
  return Trim(std::move(responses), {.end_of_turn = {}, .include_end_of_turn = true});
}

ResponseSet Several() {
  return Trimmed({Response({1}, 1, -1, 0, "a"), Response({2, 3}, 0, 1, 15), Response({4}, -1, 0, 0),
                  Response({}, 1, -1, 0), Response({}, -1, 1, -1), Response({5}, 1, 1, -1, "a"),
                  Response({6}, -1, -1, 0)});
}

TEST(ResponseSelectionTest, AVectorIsMadeOfWhatHasALabelUnderItsConditions) {
  const ResponseSet set = Several();
  const ResponseSelection first = Selected(set, {.value = 0, .conditions = 0});
  EXPECT_THAT(first.places, ElementsAre(0, 1, 3));
  EXPECT_THAT(first.expresses, ElementsAre(true, false, true));
  EXPECT_EQ(first.num_expressing, 2);
  EXPECT_EQ(first.num_non_expressing, 1);
  EXPECT_THAT(Selected(set, {.value = 0, .conditions = 1}).places, ElementsAre(0));
  EXPECT_THAT(Selected(set, {.value = kLastValue, .conditions = 1 << 15}).places, ElementsAre(1));
  EXPECT_THAT(Selected(set, {.value = kLastValue, .conditions = 1 | 1 << 15}).places,
              ElementsAre(1, 2));
  EXPECT_THAT(Selected(set, {.value = 1, .conditions = 0}).places, IsEmpty());
}

TEST(ResponseSelectionTest, WhatIsLeftOutIsCounted) {
  const ResponseSet set = Several();
  EXPECT_EQ(set.num_dropped, 2);
  const LeftOut first = LeftOutOf(set, {.value = 0, .conditions = 0});
  EXPECT_EQ(first.num_unlabelled, 3);
  EXPECT_EQ(first.num_dropped, 1);
  const LeftOut of_condition = LeftOutOf(set, {.value = kLastValue, .conditions = 1});
  EXPECT_EQ(of_condition.num_unlabelled, 3);
  EXPECT_EQ(of_condition.num_dropped, 0);
}

TEST(ResponseSelectionTest, WhatCountsInNoVectorIsTakenAway) {
  ResponseSet set = Several();
  const std::vector<SelectionRule> rules = {{.value = 0, .conditions = 1 << 15},
                                            {.value = kLastValue, .conditions = 1}};
  KeepSelected(rules, set);
  ASSERT_EQ(set.responses.size(), 2u);
  EXPECT_THAT(set.responses[0].response, ElementsAre(2, 3));
  EXPECT_THAT(set.responses[1].response, ElementsAre(4));
  EXPECT_EQ(set.num_tokens, 5);
  EXPECT_EQ(set.num_expressing + set.num_non_expressing, 2);
  EXPECT_THAT(Selected(set, rules[1]).places, ElementsAre(1));
}

TEST(ResponseSelectionTest, TheDigestIsThatOfTheSelectedResponsesAlone) {
  const ResponseSet set = Several();
  LabelledResponse one = Response({1}, -1, -1, -1, "x"), other = Response({2, 3}, -1, -1, -1, "y");
  LabelledResponse third = Response({5}, -1, -1, -1, "x");
  one.expresses = third.expresses = true;
  const ResponseSet alone = Trimmed({one, other, third});
  EXPECT_EQ(DigestOf(set, Selected(set, {.value = 0, .conditions = 0})), DigestOf(alone));
  EXPECT_NE(DigestOf(set, Selected(set, {.value = kLastValue, .conditions = 0})), DigestOf(alone));
}

TEST(ResponseSelectionTest, LabelsOfAllValuesAreStoredAndSetsWithoutAreAsTheyWere) {
  const ResponseSet set = Several();
  const std::string bytes = EncodeResponseSet(set);
  EXPECT_LE(static_cast<int64_t>(bytes.size()), EncodedSize(set));
  const auto back = DecodeResponseSet(bytes);
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_EQ(back->responses.size(), set.responses.size());
  for (size_t i = 0; i < set.responses.size(); ++i) {
    EXPECT_EQ(back->responses[i].labels, set.responses[i].labels) << i;
  }
  EXPECT_EQ(EncodeResponseSet(*back), bytes);
  ResponseSet plain = set;
  for (LabelledResponse& response : plain.responses) response.labels = {};
  EXPECT_EQ(EncodeResponseSet(plain).find("known"), std::string::npos);
  EXPECT_EQ(DecodeResponseSet(EncodeResponseSet(plain))->responses[0].labels, ValueLabels());
}

}  // namespace
}  // namespace valuescope::studies
