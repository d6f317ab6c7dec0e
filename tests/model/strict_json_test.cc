// JSON from a model's folder is bounded before it is built: how many values it has, and how much of
// it an answer repeats.
#include "model/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/strict_json.h"

namespace valuescope::model {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// An array of so many zeros.
std::string Zeros(int count) {
  std::string text = "[0";
  for (int i = 1; i < count; ++i) text += ",0";
  return text + "]";
}

std::string Refusal(const std::string& text) {
  const absl::Status status = ParseStrictJson("index.json", text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 200);
  return std::string(status.message());
}

TEST(ParseStrictJson, TakesAsManyValuesAsAllowedAndNoMore) {
  // The opening bracket counts as the first value's separator.
  const auto most = ParseStrictJson("index.json", Zeros(kMaxJsonValues));
  ASSERT_TRUE(most.ok()) << most.status();
  EXPECT_EQ(most->size(), static_cast<size_t>(kMaxJsonValues));
  EXPECT_THAT(Refusal(Zeros(kMaxJsonValues + 1)), HasSubstr("has more than 1048576 values"));
}

TEST(ParseStrictJson, BracketsAndCommasWithinTextAreNoValues) {
  const std::string text(2 * kMaxJsonValues, ',');
  const std::string brackets(2 * kMaxJsonDepth, '[');
  const auto parsed =
      ParseStrictJson("index.json", R"({"a\"":")" + text + R"(","b":")" + brackets + R"("})");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->at("a\""), text);
  EXPECT_EQ(parsed->at("b"), brackets);
}

TEST(ParseStrictJson, TakesTheDeepestNestingAllowedAndNoDeeper) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_TRUE(ParseStrictJson("index.json", nested(kMaxJsonDepth)).ok());
  EXPECT_THAT(Refusal(nested(kMaxJsonDepth + 1)), HasSubstr("nested deeper than 64"));
}

TEST(ParseStrictJson, RefusesTheEmptyKeyTwice) {
  EXPECT_THAT(Refusal(R"({"":1,"":2})"), HasSubstr("has the key \"\" twice"));
}

TEST(ParseStrictJson, DoesNotRepeatALongKeyThatIsThereTwice) {
  const std::string key(100'000, 'n');
  const std::string refusal = Refusal("{\"" + key + "\":1,\"" + key + "\":2}");
  EXPECT_THAT(refusal, HasSubstr("has a key twice"));
  EXPECT_THAT(refusal, Not(HasSubstr("nnn")));
}

}  // namespace
}  // namespace valuescope::model
