// Where stop strings end a generation: as soon as transformers does, before the text that they
// stand in, and with the tokens that are not wholly theirs.
#include "engine/generated_text.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/text/every_decoder.h"

namespace valuescope::engine {
namespace {

class GeneratedTextOf : public text::EveryDecoder {
 protected:
  struct End {
    bool stopped = false;
    std::string text;
    size_t tokens = 0;
    size_t pushed = 0;
  };

  // Takes ids until a stop string ends them or there are no more. What was settled on the way is
  // part of what is left.
  static End Run(const text::Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                 const std::vector<std::string>& stops) {
    GeneratedText generated(tokenizer, stops);
    End end;
    std::vector<std::pair<std::string, size_t>> settled;
    for (const int32_t id : ids) {
      ++end.pushed;
      end.stopped = generated.Push(id);
      if (end.stopped) break;
      settled.emplace_back(generated.text().substr(0, generated.settled_text()),
                           generated.settled_tokens());
    }
    if (!end.stopped) end.stopped = generated.Finish();
    end.text = generated.text();
    end.tokens = generated.settled_tokens();
    EXPECT_EQ(generated.settled_text(), end.text.size());
    EXPECT_LE(end.tokens, end.pushed);
    for (const auto& [text, tokens] : settled) {
      EXPECT_TRUE(end.text.starts_with(text)) << text;
      EXPECT_LE(tokens, end.tokens);
    }
    return end;
  }

  static std::string Searched(const text::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
    text::StreamingDecoder decoder(tokenizer, text::ForStopStrings{});
    std::string whole;
    for (const int32_t id : ids) whole += *decoder.Push(id);
    return whole + *decoder.Flush();
  }

  static std::vector<int32_t> First(const std::vector<int32_t>& ids, size_t count) {
    return {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count)};
  }

  // Up to four characters of a text, from anywhere.
  static std::string PartOf(const std::string& text, std::mt19937& random) {
    std::vector<size_t> begins;
    for (size_t i = 0; i < text.size(); ++i) {
      if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) begins.push_back(i);
    }
    const size_t first = random() % begins.size();
    begins.push_back(text.size());
    const size_t last = std::min(first + 1 + random() % 4, begins.size() - 1);
    return text.substr(begins[first], begins[last] - begins[first]);
  }
};

TEST_F(GeneratedTextOf, AnyDecoderEndsWithTheTokenAtWhichTransformersStops) {
  int stopped = 0;
  for (const nlohmann::json& entry : decoders()) {
    if (entry["stops"].empty()) continue;
    const auto tokenizer = TokenizerOf(entry);
    for (const nlohmann::json& one : entry["stops"]) {
      SCOPED_TRACE(entry["name"].get<std::string>() + one.dump());
      const auto ids = one["ids"].get<std::vector<int32_t>>();
      const End end = Run(*tokenizer, ids, one["stop"].get<std::vector<std::string>>());
      EXPECT_EQ(end.stopped, one["stopped"].get<bool>());
      EXPECT_EQ(end.pushed, ids.size());
      stopped += static_cast<int>(end.stopped);
    }
  }
  EXPECT_GE(stopped, 50);
}

TEST_F(GeneratedTextOf, AnyDecoderIsTheWholeTextCutWhereTheStopStringBegins) {
  std::mt19937 random(41);
  for (const nlohmann::json& entry : decoders()) {
    const auto tokenizer = TokenizerOf(entry);
    int compared = 0;
    for (int round = 0; round < 300; ++round) {
      std::vector<int32_t> ids = Draw(random, 1 + random() % 16);
      std::erase_if(
          ids, [&](int32_t id) { return id < static_cast<int32_t>(golden_["special"].size()); });
      const auto whole = tokenizer->Decode(ids, /*skip_special_tokens=*/true);
      // Broken bytes are judged as they come where stop strings are looked for.
      if (!whole.ok() || whole->empty() || Searched(*tokenizer, ids) != *whole) continue;
      const std::string stop = PartOf(*whole, random);
      SCOPED_TRACE(entry["name"].get<std::string>() + nlohmann::json(ids).dump() + "|" + stop);
      const End end = Run(*tokenizer, ids, {stop, "never in the text"});
      EXPECT_TRUE(end.stopped);
      EXPECT_EQ(end.text, whole->substr(0, whole->find(stop)));
      if (HasFailure()) return;
      ++compared;
    }
    EXPECT_GE(compared, 100) << entry["name"];
  }
}

// Where text grows by what a token adds, the tokens that are left are the fewest that give it.
TEST_F(GeneratedTextOf, AnyDecoderKeepsTheTokensThatItsTextNeeds) {
  std::mt19937 random(43);
  for (const char* name :
       {"byte level", "byte level in a sequence", "llama", "gemma", "bytes, fused, marks",
        "metaspace always", "word pieces as they are", "none", "ctc as it is"}) {
    const auto tokenizer = TokenizerNamed(name);
    for (int round = 0; round < 300; ++round) {
      const std::vector<int32_t> ids = Draw(random, 1 + random() % 16);
      const std::string whole = Searched(*tokenizer, ids);
      if (whole.empty()) continue;
      const std::string stop = PartOf(whole, random);
      if (stop.find("\ufffd") != std::string::npos) continue;  // bytes without a text of their own
      SCOPED_TRACE(std::string(name) + nlohmann::json(ids).dump() + "|" + stop);
      const End end = Run(*tokenizer, ids, {stop});
      EXPECT_TRUE(end.stopped);
      const std::string before = whole.substr(0, whole.find(stop));
      const std::vector<int32_t> kept = First(ids, end.tokens);
      EXPECT_TRUE(tokenizer->Decode(kept, /*skip_special_tokens=*/true)->starts_with(end.text));
      EXPECT_TRUE(Searched(*tokenizer, kept).starts_with(before));
      if (end.tokens > 0) {
        const std::vector<int32_t> fewer = First(ids, end.tokens - 1);
        EXPECT_TRUE(!Searched(*tokenizer, fewer).starts_with(before) ||
                    Searched(*tokenizer, fewer) == Searched(*tokenizer, kept));
      }
      if (HasFailure()) return;
    }
  }
}

TEST_F(GeneratedTextOf, AnyDecoderWithoutStopStringsIsWhatItDecodes) {
  std::mt19937 random(47);
  for (const nlohmann::json& entry : decoders()) {
    const auto tokenizer = TokenizerOf(entry);
    const std::vector<int32_t> ids = Draw(random, 30);
    const auto whole = tokenizer->Decode(ids, /*skip_special_tokens=*/true);
    if (!whole.ok()) continue;
    for (const std::vector<std::string>& stops :
         {std::vector<std::string>{}, std::vector<std::string>{"never in the text"}}) {
      const End end = Run(*tokenizer, ids, stops);
      EXPECT_FALSE(end.stopped);
      EXPECT_EQ(end.text, *whole);
      EXPECT_EQ(end.tokens, ids.size());
    }
  }
}

struct Case {
  std::string decoder;
  std::vector<std::string> pieces;
  std::vector<std::string> stops;
  bool stopped = true;
  std::string text;
  size_t tokens = 0;
  size_t pushed = 0;
};

TEST_F(GeneratedTextOf, ACaseEndsWhereItShould) {
  const std::vector<Case> cases = {
      // Special tokens are seen, and not shown.
      {"byte level", {"a", "<|im_end|>", "b"}, {"<|im_end|>"}, true, "a", 1, 2},
      {"byte level", {"a", "<|im_end|>", "b"}, {"a<|im_end|>"}, true, "", 0, 2},
      {"byte level", {"a", "<|im_end|>", "b"}, {"im_end|>b"}, true, "a", 2, 3},
      {"byte level", {"a", "<|im_end|>", "b"}, {"ab"}, false, "ab", 3, 3},
      {"byte level", {"<|im_end|>", "b"}, {"<|im_end|>"}, true, "", 0, 1},
      {"byte level", {"\u00e2", "</s>", "b"}, {"</s>"}, true, "\ufffd", 1, 2},
      {"llama", {"\u2581a", "</s>", "\u2581ab"}, {"</s>"}, true, "a", 1, 2},
      {"llama", {"<0xE2>", "<0x82>", "<0xAC>", "</s>"}, {"</s>"}, true, "\u20ac", 3, 4},
      {"llama", {"<0xE2>", "<0x82>", "<0xAC>", "</s>"}, {"\u20ac</s>"}, true, "", 0, 4},
      {"llama", {"</s>", "\u2581a", "\u2581ab", "b"}, {"a a"}, true, "", 2, 3},
      {"word pieces", {"a", "[SEP]", "##ab"}, {" [SEP]"}, true, "a", 1, 2},
      // Bytes that were held back before a stop string.
      {"llama", {"\u2581ab", "<0xE2>", "<0x82>", "<0xAC>", "do"}, {"do"}, true, "ab\u20ac", 4, 5},
      {"llama", {"\u2581ab", "<0x09>", "ab"}, {"b"}, true, "a", 1, 1},
      {"llama", {"\u2581a", "<0x09>", "do"}, {"o"}, true, "a\td", 3, 3},
      {"llama", {"\u2581a", "<0x0A>", "b"}, {"\n"}, true, "a", 1, 2},
      {"llama", {"\u2581a", "<0xFF>", "<0x0A>", "b"}, {"\n"}, true, "a\ufffd", 2, 3},
      {"byte level in a sequence",
       {"a", "\u00e2\u0124", "\u00ac", "do"},
       {"do"},
       true,
       "a\u20ac",
       3,
       4},
      // Across tokens, several at once, within a token, none at all.
      {"byte level", {"a", "b", "a", "b", "b"}, {"babb"}, true, "a", 1, 5},
      {"byte level", {"a", "abcdef"}, {"cd", "bcde"}, true, "aa", 2, 2},
      {"byte level", {"a", "b", "b"}, {"bc", "bbb"}, false, "abb", 3, 3},
      {"byte level", {}, {"a"}, false, "", 0, 0},
      {"word ends", {"a</w>", "b</w>", "a"}, {"b"}, true, "a ", 1, 3},
      {"fused, then byte level", {"a", "b", "a"}, {"b"}, true, "a", 1, 3},
      // A token without text goes with the one before it.
      {"gemma", {"a", "", "b"}, {"b"}, true, "a", 2, 3},
      {"gemma", {"ab", "", "b"}, {"bb"}, true, "a", 1, 3},
  };
  for (const Case& one : cases) {
    const auto tokenizer = TokenizerNamed(one.decoder);
    const End end = Run(*tokenizer, IdsOf(one.pieces), one.stops);
    SCOPED_TRACE(one.decoder + " " + nlohmann::json(one.pieces).dump() + " " +
                 nlohmann::json(one.stops).dump());
    EXPECT_EQ(end.stopped, one.stopped);
    EXPECT_EQ(end.text, one.text);
    EXPECT_EQ(end.tokens, one.tokens);
    EXPECT_EQ(end.pushed, one.pushed);
  }
}

// A long answer by byte tokens alone: what is held back is given once, and the end is still found.
TEST_F(GeneratedTextOf, ALongRunOfBytesIsHeldBackAndStopsAtOnce) {
  const auto tokenizer = TokenizerNamed("llama");
  std::vector<int32_t> ids;
  std::string text;
  for (int i = 0; i < 30000; ++i) {
    for (const int32_t id : IdsOf({"<0xE2>", "<0x82>", "<0xAC>"})) ids.push_back(id);
    text += "\u20ac";
  }
  ids.push_back(IdOf("<0x0A>"));
  const End end = Run(*tokenizer, ids, {"\n"});
  EXPECT_TRUE(end.stopped);
  EXPECT_EQ(end.text, text);
  EXPECT_EQ(end.tokens, ids.size() - 1);
}

}  // namespace
}  // namespace valuescope::engine
