// Awkward text through SmolLM2-135M-Instruct's tokenizer and template, against transformers
// (tests/golden/make_text_corpus.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "text/streaming_decoder.h"
#include "text/text_model.h"

namespace valuescope::text {
namespace {

using nlohmann::json;

class Corpus : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto loaded =
        TextModel::Load(std::string(VALUESCOPE_CACHE_DIR) + "/models/SmolLM2-135M-Instruct");
    ASSERT_TRUE(loaded.ok()) << "run docker/setup: " << loaded.status();
    model_ = *std::move(loaded);
    std::ifstream(std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/text/corpus.json") >> golden_;
  }
  static void TearDownTestSuite() { model_.reset(); }

  static std::string TextOf(const json& entry) {
    if (entry.contains("text")) return entry["text"].get<std::string>();
    std::string text;
    for (int i = 0; i < entry["times"].get<int>(); ++i) text += entry["unit"].get<std::string>();
    return text;
  }
  static std::vector<int32_t> IdsOf(const json& entry) {
    if (entry.contains("ids")) return entry["ids"].get<std::vector<int32_t>>();
    std::vector<int32_t> ids;
    for (const json& run : entry["runs"]) {
      ids.insert(ids.end(), run[1].get<size_t>(), run[0].get<int32_t>());
    }
    return ids;
  }

  static inline std::unique_ptr<TextModel> model_;
  static inline json golden_;
};

TEST_F(Corpus, TextsBecomeTheIdsOfTransformersAndBack) {
  ASSERT_GE(golden_["texts"].size(), 50u);
  for (const json& entry : golden_["texts"]) {
    const std::string text = TextOf(entry);
    SCOPED_TRACE(text.substr(0, 80));
    const std::vector<int32_t> expected = IdsOf(entry);
    const auto ids = model_->tokenizer().Encode(text, /*add_special_tokens=*/false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected);
    const auto with = model_->tokenizer().Encode(text, /*add_special_tokens=*/true);
    ASSERT_TRUE(with.ok()) << with.status();
    EXPECT_EQ(*with, entry.contains("ids_with_special")
                         ? entry["ids_with_special"].get<std::vector<int32_t>>()
                         : expected);
    EXPECT_EQ(*model_->tokenizer().Decode(expected, /*skip_special_tokens=*/false),
              entry.value("decoded", text));
    EXPECT_EQ(*model_->tokenizer().Decode(expected, /*skip_special_tokens=*/true),
              entry.value("decoded_without_special", entry.value("decoded", text)));
  }
}

// A stream shows a prefix of what the whole decodes to, never half a character, and all of it.
TEST_F(Corpus, StreamsAreThePrefixesOfTransformersWithoutHalfCharacters) {
  int with_prefixes = 0;
  for (const json& entry : golden_["texts"]) {
    if (!entry.contains("prefixes")) continue;
    ++with_prefixes;
    const std::vector<int32_t> ids = IdsOf(entry);
    SCOPED_TRACE(TextOf(entry));
    const std::string whole = entry.value("decoded", TextOf(entry));
    StreamingDecoder decoder(model_->tokenizer(), /*skip_special_tokens=*/false);
    std::string shown;
    for (size_t i = 0; i < ids.size(); ++i) {
      const auto piece = decoder.Push(ids[i]);
      ASSERT_TRUE(piece.ok()) << piece.status();
      shown += *piece;
      // transformers shows half a character as U+FFFD; the text may hold one of its own.
      const std::string seen = entry["prefixes"][i].get<std::string>();
      std::string sure = seen;
      while (sure.ends_with("\uFFFD")) sure.resize(sure.size() - 3);
      EXPECT_TRUE(whole.starts_with(shown)) << shown << " after " << i + 1 << " tokens";
      EXPECT_TRUE(seen.starts_with(shown)) << shown << " after " << i + 1 << " tokens";
      EXPECT_TRUE(shown.starts_with(sure)) << shown << " after " << i + 1 << " tokens";
    }
    shown += *decoder.Flush();
    EXPECT_EQ(shown, whole);
  }
  EXPECT_GE(with_prefixes, 20);
}

TEST_F(Corpus, ChatsRenderAsTransformersRendersThem) {
  ASSERT_GE(golden_["chats"].size(), 30u);
  for (const json& entry : golden_["chats"]) {
    std::vector<ChatMessage> messages;
    for (const json& message : entry["messages"]) {
      messages.push_back({message[0].get<std::string>(), message[1].get<std::string>()});
    }
    RenderOptions options;
    options.add_generation_prompt = entry["add_generation_prompt"].get<bool>();
    const auto encoded = model_->EncodeChat(messages, options);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_EQ(encoded->text, entry["text"].get<std::string>());
    EXPECT_EQ(encoded->ids, entry["ids"].get<std::vector<int32_t>>());
  }
}

}  // namespace
}  // namespace valuescope::text
