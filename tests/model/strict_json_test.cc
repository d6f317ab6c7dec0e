// JSON from a model's folder is bounded before it is built: how many values it has, and how much of
// it an answer repeats.
#include "model/strict_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

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

// What Python's json.loads gives, its odd numbers as {"__float__": ...}.
TEST(ParsePythonJson, ReadsWhatPythonReads) {
  for (const auto& [text, expected] : std::vector<std::pair<std::string, std::string>>{
           {R"({"a":1,"b":2,"a":3})", R"({"a":3,"b":2})"},
           {R"({"a":{"x":1},"a":{"y":2}})", R"({"a":{"y":2}})"},
           {R"([NaN, Infinity,-Infinity])",
            R"([{"__float__":"NaN"},{"__float__":"Infinity"},{"__float__":"-Infinity"}])"},
           {R"({"a":1e999,"b":-1e999,"c":1e-999})",
            R"({"a":{"__float__":"Infinity"},"b":{"__float__":"-Infinity"},"c":0.0})"},
           {R"({"NaN":"NaN","b":"a\"Infinity","c":"\\"})",
            R"({"NaN":"NaN","b":"a\"Infinity","c":"\\"})"},
           {R"({"a":1000000000000000019884624838656})",
            R"({"a":1000000000000000019884624838656.0})"},
           {R"("\ud83d\ude00")", "\"\U0001F600\""},
           {" \t\r\n7 ", "7"},
           {"NaN", R"({"__float__":"NaN"})"}}) {
    const auto parsed = ParsePythonJson("config.json", text);
    ASSERT_TRUE(parsed.ok()) << parsed.status() << " " << text;
    EXPECT_EQ(*parsed, nlohmann::json::parse(expected)) << text;
  }
}

TEST(ParsePythonJson, RefusesWhatPythonRefusesAndHalfCharacters) {
  for (const auto& [text, says] : std::vector<std::pair<std::string, std::string>>{
           {"", "config.json: empty"},
           {"\xef\xbb\xbf{}", "begins with a byte order mark"},
           {"{\"a\":1,}", "not valid JSON at byte"},
           {"{'a':1}", "not valid JSON at byte"},
           {"[nan]", "not valid JSON at byte"},
           {"[-NaN]", "not valid JSON at byte"},
           {"[+1]", "not valid JSON at byte"},
           {"[1.]", "not valid JSON at byte"},
           {"[NaNs]", "not valid JSON at byte"},
           {"[01e999]", "not valid JSON at byte"},
           {"[1.e999]", "not valid JSON at byte"},
           {std::string("[1]\0[2]", 7), "not valid JSON at byte 4"},
           {"[Infinity1]", "not valid JSON at byte"},
           {"[1] 2", "not valid JSON at byte"},
           {"\"\n\"", "not valid JSON at byte"},
           {"\"\xff\"", "not valid JSON at byte"},
           {"\"NaN", "not valid JSON at byte"},
           {"\"\\", "not valid JSON at byte"},
           {R"("\ud83d")", "half a surrogate pair"},
           {R"("\ude00")", "half a surrogate pair"},
           {std::string(100'000, '['), "nested deeper than 64"},
           {Zeros(kMaxJsonValues + 1), "has more than 1048576 values"}}) {
    const absl::Status status = ParsePythonJson("config.json", text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 20);
    EXPECT_THAT(std::string(status.message()), HasSubstr(says)) << text.substr(0, 20);
  }
}

TEST(ParsePythonJson, TellsTheOrderOfKeysEachOnce) {
  std::vector<std::string> keys;
  const auto parsed = valuescope::ParsePythonJson(
      R"({"z":1,"a":{"y":2,"b":{"deep":1},"y":3},"list":[{"in":1}],"z":4})", &keys);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(keys, (std::vector<std::string>{"z", "a", "a.y", "a.b", "list"}));
}

}  // namespace
}  // namespace valuescope::model
