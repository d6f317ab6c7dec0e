// Awkward text through tokenizers and templates, against transformers
// (tests/golden/make_text_corpus.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/sha256.h"
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
    const std::string golden = std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/text";
    std::ifstream(golden + "/corpus.json") >> golden_;
    auto small = TextModel::Load(golden + "/byte_fallback");
    ASSERT_TRUE(small.ok()) << small.status();
    byte_fallback_ = *std::move(small);
  }
  static void TearDownTestSuite() {
    model_.reset();
    byte_fallback_.reset();
  }

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

  static void CheckText(const Tokenizer& tokenizer, const json& entry) {
    const std::string text = TextOf(entry);
    SCOPED_TRACE(text.substr(0, 80));
    const std::vector<int32_t> expected = IdsOf(entry);
    const auto ids = tokenizer.Encode(text, /*add_special_tokens=*/false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, expected);
    const auto with = tokenizer.Encode(text, /*add_special_tokens=*/true);
    ASSERT_TRUE(with.ok()) << with.status();
    EXPECT_EQ(*with, entry.contains("ids_with_special")
                         ? entry["ids_with_special"].get<std::vector<int32_t>>()
                         : expected);
    EXPECT_EQ(*tokenizer.Decode(expected, /*skip_special_tokens=*/false),
              entry.value("decoded", text));
    EXPECT_EQ(*tokenizer.Decode(expected, /*skip_special_tokens=*/true),
              entry.value("decoded_without_special", text));
  }

  static void CheckLongText(const Tokenizer& tokenizer, const json& entry) {
    const std::string text = TextOf(entry);
    SCOPED_TRACE(text.substr(0, 8));
    const auto ids = tokenizer.Encode(text, /*add_special_tokens=*/false);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(ids->size(), entry["count"].get<size_t>());
    EXPECT_GE(ids->size(), tokenizer.FewestTokens(text));
    EXPECT_EQ(Sha256Hex(absl::StrJoin(*ids, ",")), entry["sha256"].get<std::string>());
    EXPECT_EQ(Sha256Hex(*tokenizer.Decode(*ids, /*skip_special_tokens=*/false)),
              entry["decoded_sha256"].get<std::string>());
  }

  static void CheckStream(const Tokenizer& tokenizer, const json& entry) {
    const std::vector<int32_t> ids = IdsOf(entry);
    SCOPED_TRACE(TextOf(entry));
    const std::string whole = entry.value("decoded", TextOf(entry));
    StreamingDecoder decoder(tokenizer, /*skip_special_tokens=*/false);
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

  static inline std::unique_ptr<TextModel> model_;
  static inline std::unique_ptr<TextModel> byte_fallback_;
  static inline json golden_;
};

TEST_F(Corpus, TextsBecomeTheIdsOfTransformersAndBack) {
  ASSERT_GE(golden_["texts"].size(), 50u);
  for (const json& entry : golden_["texts"]) CheckText(model_->tokenizer(), entry);
}

TEST_F(Corpus, TextsBecomeTheIdsOfTransformersByByteFallback) {
  ASSERT_GE(golden_["byte_fallback"].size(), 50u);
  for (const json& entry : golden_["byte_fallback"]) {
    CheckText(byte_fallback_->tokenizer(), entry);
  }
}

TEST_F(Corpus, LongTextsBecomeTheIdsOfTransformersAndBack) {
  for (const json& entry : golden_["long"]) CheckLongText(model_->tokenizer(), entry);
  for (const json& entry : golden_["byte_fallback_long"]) {
    CheckLongText(byte_fallback_->tokenizer(), entry);
  }
}

// A stream shows a prefix of what the whole decodes to, never half a character, and all of it.
TEST_F(Corpus, StreamsAreThePrefixesOfTransformersWithoutHalfCharacters) {
  int with_prefixes = 0;
  for (const json& entry : golden_["texts"]) {
    if (!entry.contains("prefixes")) continue;
    ++with_prefixes;
    CheckStream(model_->tokenizer(), entry);
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

// Renders templates over the corpus's messages and arguments.
class TemplateCorpus : public Corpus {
 protected:
  TemplateCorpus() {
    for (const json& message : templates_["messages"]) {
      messages_.push_back({message[0].get<std::string>(), message[1].get<std::string>()});
    }
    options_.add_generation_prompt = false;
    options_.template_arguments = templates_["arguments"].get<std::string>();
  }

  // `expected` is null for what Jinja2 refuses, when it is compiled or when it is rendered.
  void Check(const std::string& source, const json& expected) {
    SCOPED_TRACE(source);
    const auto compiled = ChatTemplate::Compile(source, {});
    const auto text = compiled.ok() ? (*compiled)->Render(messages_, options_)
                                    : absl::StatusOr<std::string>(compiled.status());
    if (expected.is_null()) {
      EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument) << text.value_or("");
    } else {
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(*text, expected.get<std::string>());
    }
  }

  const json& templates_ = golden_["templates"];
  std::vector<ChatMessage> messages_;
  RenderOptions options_;
};

TEST_F(TemplateCorpus, TemplatesRenderAsTransformersRendersThem) {
  ASSERT_GE(templates_["cases"].size(), 1600u);
  for (const json& entry : templates_["cases"]) Check(entry[0].get<std::string>(), entry[1]);
}

TEST_F(TemplateCorpus, ValuesOfEveryTypeAreThoseOfPython) {
  ASSERT_GE(templates_["forms"].size(), 140u);
  for (const json& form : templates_["forms"]) {
    ASSERT_EQ(form[1].size(), templates_["values"].size());
    for (size_t i = 0; i < form[1].size(); ++i) {
      const std::string value = templates_["values"][i].get<std::string>();
      Check(absl::StrReplaceAll(form[0].get<std::string>(), {{"X", value}}), form[1][i]);
    }
  }
}

TEST_F(TemplateCorpus, PairsOfEveryTypeAreThoseOfPython) {
  ASSERT_GE(templates_["pairs"].size(), 30u);
  const json& values = templates_["paired"];
  for (const json& pair : templates_["pairs"]) {
    ASSERT_EQ(pair[1].size(), values.size() * values.size());
    for (size_t i = 0; i < pair[1].size(); ++i) {
      const std::string left = values[i / values.size()].get<std::string>();
      const std::string right = values[i % values.size()].get<std::string>();
      Check(absl::StrReplaceAll(pair[0].get<std::string>(), {{"X", left}, {"Y", right}}),
            pair[1][i]);
    }
  }
}

TEST_F(Corpus, DeclaredTokensAreThoseOfTransformers) {
  const json& declared = golden_["declared"];
  ASSERT_GE(declared["cases"].size(), 10u);
  const std::filesystem::path folder = testing::TempDir() + "/declared_tokens";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "tokenizer.json") << declared["tokenizer"].get<std::string>();
  for (const json& entry : declared["cases"]) {
    SCOPED_TRACE(entry["config"].dump());
    std::ofstream(folder / "tokenizer_config.json") << entry["config"].dump();
    const auto model = TextModel::Load(folder);
    ASSERT_TRUE(model.ok()) << model.status();
    for (const json& text : entry["texts"]) {
      SCOPED_TRACE(text[0].get<std::string>());
      const auto ids = (*model)->EncodeText(text[0].get<std::string>(), false);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, text[1].get<std::vector<int32_t>>());
      EXPECT_EQ(*(*model)->tokenizer().Decode(*ids, /*skip_special_tokens=*/true),
                text[2].get<std::string>());
    }
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace valuescope::text
