#include "text/named_option.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace valuescope::text {
namespace {

// The index of the option that the answer names; -1 for none.
int Named(const std::vector<OptionInWords>& options, const std::string& answer) {
  const auto named = NamedOption::Create(options);
  EXPECT_TRUE(named.ok()) << named.status();
  const auto option = named->In(answer);
  EXPECT_TRUE(option.ok()) << option.status();
  return option->value_or(-1);
}

const std::vector<OptionInWords> kLikert = {
    {"1", "not like me at all"}, {"2", "not like me"}, {"3", "a little like me"},
    {"4", "somewhat like me"},   {"5", "like me"},     {"6", "very much like me"}};

TEST(NamedOption, ALabelStandsAloneOrBesideWhatIsNoLetterOrDigit) {
  for (const char* answer : {"6", " 6", "6.", "6: very much like me", "My answer is 6!", "(6)",
                             "**6**", "6\n", "“6”", "我选6。", "6、"}) {
    EXPECT_EQ(Named(kLikert, answer), 5) << answer;
  }
}

TEST(NamedOption, WhatALetterOrDigitContinuesIsNoLabel) {
  for (const char* answer : {"16", "60", "6th", "x6", "6\xcc\x81", "66"}) {
    EXPECT_EQ(Named(kLikert, answer), -1) << answer;
  }
  EXPECT_EQ(Named(kLikert, "66 or 6"), 5);
}

TEST(NamedOption, SeveralLabelsNameNone) {
  EXPECT_EQ(Named(kLikert, "5 or 6"), -1);
  EXPECT_EQ(Named(kLikert, "6, on a scale from 1 to 6"), -1);
  EXPECT_EQ(Named(kLikert, "6, yes: 6"), 5);
  EXPECT_EQ(Named(kLikert, "5 or 6: like me"), -1);
}

TEST(NamedOption, ATextCountsWhereNoLabelStands) {
  EXPECT_EQ(Named(kLikert, "Very much like me."), 5);
  EXPECT_EQ(Named(kLikert, "That is LIKE ME"), 4);
  EXPECT_EQ(Named(kLikert, "not like  me\nat all"), 0);
  EXPECT_EQ(Named(kLikert, "not like me, really"), 1);
  EXPECT_EQ(Named(kLikert, "somewhat like me or a little like me"), -1);
  EXPECT_EQ(Named(kLikert, "unlike men"), -1);
}

TEST(NamedOption, NothingNamesNone) {
  EXPECT_EQ(Named(kLikert, ""), -1);
  EXPECT_EQ(Named(kLikert, "I cannot answer that."), -1);
  EXPECT_EQ(Named({{"1", ""}, {"2", ""}}, "anything"), -1);
}

TEST(NamedOption, LabelsAreSpelledExactly) {
  const std::vector<OptionInWords> letters = {{"A", ""}, {"B", ""}, {"b", ""}};
  EXPECT_EQ(Named(letters, "It is also a B"), 1);
  EXPECT_EQ(Named(letters, "b"), 2);
  EXPECT_EQ(Named(letters, "A thing as B"), -1);
}

TEST(NamedOption, TextsOfOtherScriptsAreFound) {
  const std::vector<OptionInWords> options = {
      {"1", "전혀 나와 같지 않다"}, {"2", "나와 같다"}, {"3", "يشبهني"}};
  EXPECT_EQ(Named(options, "저는 나와 같다 라고 답합니다"), 1);
  EXPECT_EQ(Named(options, "نعم، يشبهني."), 2);
  EXPECT_EQ(Named(options, "전혀 나와 같지 않다"), 0);
}

TEST(NamedOption, ErrorsNameTheOption) {
  const auto field = [](const std::vector<OptionInWords>& options) {
    return DetailsOf(NamedOption::Create(options).status()).field;
  };
  EXPECT_EQ(field({{"1", ""}, {"2*", ""}}), "[1].label");
  EXPECT_EQ(field({{"1", "yes*"}}), "[0].text");
  EXPECT_EQ(field({{"1", std::string(257, 'a')}}), "[0].text");
  EXPECT_EQ(field({{"1", "\xff"}}), "[0].text");
  EXPECT_EQ(NamedOption::Create(kLikert)->In("\xff").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace valuescope::text
