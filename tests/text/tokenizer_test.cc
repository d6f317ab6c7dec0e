#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <thread>

#include "base/error.h"
#include "base/sha256.h"
#include "tests/text/small_tokenizers.h"
#include "text/library_failure.h"

namespace valuescope::text {
namespace {

std::unique_ptr<Tokenizer> LoadOrDie(const std::string& file) {
  auto tokenizer = Tokenizer::Load(file);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

const std::vector<std::string>& NastyTexts() {
  static const auto* const texts = new std::vector<std::string>{
      "",
      "hello hello",
      " leading, trailing ",
      "\n\t \r\n",
      "\U0001F469\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466",  // a family, joined
      "e\u0301\u0323 o\u0302",                                       // combining marks
      "\u202E\u05E9\u05DC\u05D5\u05DD \u0645\u0631\u062D\u0628\u0627",
      std::string("a\0b\0", 4),
      "\uFEFF\uFFFD\uFFFE",
      std::string(100'000, 'a'),
      std::string(100'000, ' '),
  };
  return *texts;
}

TEST(Tokenizer, DecodesWhatItEncoded) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  for (const std::string& text : NastyTexts()) {
    const auto ids = tokenizer->Encode(text, /*add_special_tokens=*/false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    const auto decoded = tokenizer->Decode(*ids, /*skip_special_tokens=*/false);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(*decoded, text);
  }
}

TEST(Tokenizer, MergesAsItsFileSays) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  const auto ids = tokenizer->Encode("hello hello", /*add_special_tokens=*/false);
  ASSERT_TRUE(ids.ok());
  EXPECT_THAT(*ids, testing::ElementsAre(259, 260));
  EXPECT_EQ(tokenizer->Piece(260), "\u0120hello");
}

TEST(Tokenizer, AddsItsOwnSpecialTokensOnlyWhenAsked) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  const auto with = tokenizer->Encode("hello", /*add_special_tokens=*/true);
  const auto without = tokenizer->Encode("hello", /*add_special_tokens=*/false);
  ASSERT_TRUE(with.ok() && without.ok());
  EXPECT_THAT(*with, testing::ElementsAre(262, 259));
  EXPECT_THAT(*without, testing::ElementsAre(259));
}

TEST(Tokenizer, ReadsSpecialTokenTextAsTheSpecialToken) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  const auto ids = tokenizer->Encode("hello<|im_end|>hello", /*add_special_tokens=*/false);
  ASSERT_TRUE(ids.ok());
  EXPECT_THAT(*ids, testing::ElementsAre(259, 264, 259));
  EXPECT_EQ(*tokenizer->Decode(*ids, /*skip_special_tokens=*/false), "hello<|im_end|>hello");
  EXPECT_EQ(*tokenizer->Decode(*ids, /*skip_special_tokens=*/true), "hellohello");
}

TEST(Tokenizer, SkipsOnlyAddedTokensThatAreSpecial) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  EXPECT_EQ(*tokenizer->Decode({263, 265}, /*skip_special_tokens=*/true), "<tool>");
  EXPECT_EQ(tokenizer->AddedTokenId("<tool>"), 265);
  EXPECT_EQ(tokenizer->AddedTokenId("hello"), std::nullopt);
  EXPECT_EQ(tokenizer->added_tokens().size(), 5u);
}

TEST(Tokenizer, LeavesOutIdsWithoutAToken) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  EXPECT_EQ(tokenizer->vocabulary_size(), 267);
  EXPECT_EQ(*tokenizer->Decode({259, 267, -1, 2'000'000'000}, /*skip_special_tokens=*/false),
            "hello");
  EXPECT_EQ(tokenizer->Piece(267), "");
  EXPECT_EQ(tokenizer->Piece(-1), "");
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  const auto ids = tokenizer->Encode("a\xff", /*add_special_tokens=*/false);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, RefusesTextOnWhichAnExpressionOfItsFileGivesUp) {
  nlohmann::json file = nlohmann::json::parse(ByteLevelTokenizer());
  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "^(a+)+$"}}}, {"content", "x"}};
  const auto tokenizer = LoadOrDie(file.dump());
  const absl::Status status = tokenizer->Encode(std::string(40, 'a') + "!", false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(status).field, "text");
  EXPECT_THAT(std::string(status.message()), testing::Not(testing::HasSubstr("/")));
  EXPECT_TRUE(tokenizer->Encode("aaa", false).ok());
}

// Only faults without a reason have words that stay in the log.
TEST(Tokenizer, FaultsOfItsLibraryAreForTheLog) {
  const absl::Status status = StatusOf(VS_INTERNAL, OwnedString(), "text");
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(DetailsOf(status).reason, "");
}

TEST(Tokenizer, IsNamedByTheDigestOfItsFile) {
  const std::string file = ByteLevelTokenizer();
  EXPECT_EQ(LoadOrDie(file)->digest(), Sha256Hex(file));
}

TEST(Tokenizer, IgnoresPaddingAndTruncationOfTheFile) {
  nlohmann::json file = nlohmann::json::parse(ByteLevelTokenizer());
  file["truncation"] = {
      {"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  file["padding"] = {{"strategy", {{"Fixed", 1'000'000'000'000}}},
                     {"direction", "Right"},
                     {"pad_to_multiple_of", nullptr},
                     {"pad_id", 0},
                     {"pad_type_id", 0},
                     {"pad_token", "!"}};
  const auto ids = LoadOrDie(file.dump())->Encode("hello hello hello", false);
  ASSERT_TRUE(ids.ok());
  EXPECT_EQ(ids->size(), 3u);
}

TEST(Tokenizer, RefusesFilesThatAreNoTokenizer) {
  std::string deep(200'000, '[');
  for (const std::string& file :
       {std::string(), std::string("{}"), std::string("null"), std::string("\xff\xfe"), deep,
        R"({"model":)" + deep, ByteLevelTokenizer().substr(0, 2000),
        std::string(R"({"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{},)"
                    R"("merges":[]}})")}) {
    const auto tokenizer = Tokenizer::Load(file);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << file.substr(0, 60);
  }
}

TEST(Tokenizer, RefusesIdsBeyondThirtyOneBits) {
  nlohmann::json file = nlohmann::json::parse(ByteLevelTokenizer());
  file["model"]["vocab"]["zz"] = 4'294'967'295;
  EXPECT_EQ(Tokenizer::Load(file.dump()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Tokenizer, TellsHowFewTokensATextMayHave) {
  const std::string text(1200, 'a');
  const auto byte_level = LoadOrDie(ByteLevelTokenizer());
  EXPECT_EQ(byte_level->FewestTokens(text), 100u);  // "<|im_start|>" has 12 bytes
  EXPECT_EQ(LoadOrDie(ByteFallbackTokenizer())->FewestTokens(text), 200u);  // "<0x00>"
  EXPECT_EQ(byte_level->FewestTokens(""), 0u);
}

TEST(Tokenizer, CountsNoBytesThatAreLeftOutOfTheIds) {
  nlohmann::json file = nlohmann::json::parse(ByteLevelTokenizer());
  file["model"]["vocab"]["bb"] = file["model"]["vocab"]["a"];
  file["model"]["vocab"].erase("a");
  file["model"]["merges"] = nlohmann::json::array();
  const auto tokenizer = LoadOrDie(file.dump());
  EXPECT_EQ(tokenizer->FewestTokens(std::string(1200, 'a')), 0u);
  EXPECT_EQ(tokenizer->Encode(std::string(1200, 'a'), /*add_special_tokens=*/false)->size(), 0u);
  EXPECT_EQ(tokenizer->FewestTokens(std::string(1200, 'b')), 100u);
}

TEST(Tokenizer, KnowsNoFewestWhereATokenTakesAnyLengthOfText) {
  const std::string text(1200, 'a');
  nlohmann::json file = nlohmann::json::parse(ByteLevelTokenizer());
  file["added_tokens"][1]["rstrip"] = true;
  EXPECT_EQ(LoadOrDie(file.dump())->FewestTokens(text), 0u);
  file = nlohmann::json::parse(ByteFallbackTokenizer());
  file["model"]["byte_fallback"] = false;
  EXPECT_EQ(LoadOrDie(file.dump())->FewestTokens(text), 0u);
  file = nlohmann::json::parse(ByteLevelTokenizer());
  file["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(LoadOrDie(file.dump())->FewestTokens(text), 25u);
  file["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}};
  EXPECT_EQ(LoadOrDie(file.dump())->FewestTokens(text), 0u);
}

TEST(Tokenizer, GivesTheSameIdsFromManyThreads) {
  const auto tokenizer = LoadOrDie(ByteLevelTokenizer());
  const std::string text = "hello, \U0001F600 world <|im_end|> hello";
  const auto expected = *tokenizer->Encode(text, /*add_special_tokens=*/true);
  std::vector<std::thread> threads;
  std::vector<int> differing(4);
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 200; ++i) {
        const auto ids = tokenizer->Encode(text, /*add_special_tokens=*/true);
        if (!ids.ok() || *ids != expected) ++differing[thread];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(differing, testing::Each(0));
}

}  // namespace
}  // namespace valuescope::text
