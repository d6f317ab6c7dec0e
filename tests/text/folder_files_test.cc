// Folders in which several files say something of the same thing, against transformers
// (tests/golden/make_folders.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/sha256.h"
#include "tests/text/small_tokenizers.h"
#include "text/text_model.h"

namespace valuescope::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::ElementsAre;

class FolderFiles : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::ifstream(VALUESCOPE_SOURCE_DIR "/tests/golden/folders.json") >> golden_;
  }

  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("folder_files_") +
               testing::UnitTest::GetInstance()->current_test_info()->name());
    Clear();
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Clear() {
    fs::remove_all(folder_);
    fs::create_directory(folder_);
  }

  void Write(const std::string& name, const std::string& content) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }

  void WriteCase(const json& entry) {
    Clear();
    Write("tokenizer.json", golden_["tokenizer"].get<std::string>());
    for (const auto& [name, content] : entry["files"].items()) {
      Write(name, content.get<std::string>());
    }
  }

  std::unique_ptr<TextModel> LoadOrDie() {
    auto model = TextModel::Load(folder_);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *std::move(model) : nullptr;
  }

  std::string FieldOfLoadError() {
    const absl::Status status = TextModel::Load(folder_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return DetailsOf(status).field;
  }

  fs::path folder_;
  static inline json golden_;
};

TEST_F(FolderFiles, TextsHaveTheIdsThatTransformersGivesBesideTheSameFiles) {
  const json& texts = golden_["texts"];
  ASSERT_GE(golden_["tokens"].size(), 100u);
  for (const json& entry : golden_["tokens"]) {
    SCOPED_TRACE(entry["files"].dump());
    WriteCase(entry);
    const auto model = LoadOrDie();
    ASSERT_NE(model, nullptr);
    ASSERT_EQ(entry["texts"].size(), texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      SCOPED_TRACE(texts[i].get<std::string>());
      const auto ids = model->EncodeText(texts[i].get<std::string>(), /*add_special_tokens=*/false);
      ASSERT_TRUE(ids.ok()) << ids.status();
      EXPECT_EQ(*ids, entry["texts"][i][0].get<std::vector<int32_t>>());
      EXPECT_EQ(*model->tokenizer().Decode(*ids, /*skip_special_tokens=*/true),
                entry["texts"][i][1].get<std::string>());
    }
    const json& chat_template = entry["chat_template"];
    EXPECT_EQ(model->template_digest(),
              chat_template.is_null() ? "" : Sha256Hex(chat_template.get<std::string>()));
  }
}

TEST_F(FolderFiles, TemplatesFindTheSpecialTokensOfTransformersByName) {
  // Every name that any case has, in each of them.
  std::set<std::string> names;
  for (const json& entry : golden_["tokens"]) {
    for (const auto& [name, text] : entry["named"].items()) names.insert(name);
  }
  ASSERT_GE(names.size(), 6u);
  std::string source;
  for (const std::string& name : names) source += name + "={{ " + name + " }};";
  for (const json& entry : golden_["tokens"]) {
    SCOPED_TRACE(entry["files"].dump());
    WriteCase(entry);
    Write("chat_template.jinja", source);
    fs::remove_all(folder_ / "additional_chat_templates");
    const auto model = LoadOrDie();
    ASSERT_NE(model, nullptr);
    const auto chat = model->EncodeChat({{"user", "a"}}, {});
    ASSERT_TRUE(chat.ok()) << chat.status();
    std::string expected;
    for (const std::string& name : names) {
      expected += name + "=" + entry["named"].value(name, "") + ";";
    }
    EXPECT_EQ(chat->text, expected);
  }
}

// What lies beyond the vocabulary is left out: it is never generated.
TEST_F(FolderFiles, ResponsesEndWhereGenerateOfTransformersStops) {
  ASSERT_GE(golden_["ends"].size(), 80u);
  for (const json& entry : golden_["ends"]) {
    SCOPED_TRACE(entry.dump());
    WriteCase(entry);
    const auto model = LoadOrDie();
    ASSERT_NE(model, nullptr);
    std::set<int32_t> expected;
    for (const json& id : entry["ends"]) {
      if (id < 64) expected.insert(id.get<int32_t>());
    }
    EXPECT_THAT(model->eos_ids(), testing::ElementsAreArray(expected));
  }
}

TEST_F(FolderFiles, ATokenBeyondTheEmbeddingIsRefusedWhereItIsUsed) {
  Write("tokenizer.json", ByteLevelTokenizer());  // of 267 ids
  Write("tokenizer_config.json", R"({"pad_token": "<pad>"})");
  Write("config.json", R"({"vocab_size": 266})");
  Write("chat_template.jinja", "{{ messages[0].content }}");
  const auto model = LoadOrDie();
  ASSERT_NE(model, nullptr);
  EXPECT_THAT(*model->EncodeText("hello<tool>", false), ElementsAre(259, 265));
  for (const char* text : {"hello<\u4f60>", "<pad>"}) {
    const absl::Status status = model->EncodeText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(DetailsOf(status).field, "text");
    EXPECT_EQ(DetailsOf(status).reason, "TOKEN_OUTSIDE_VOCABULARY");
    EXPECT_EQ(DetailsOf(model->EncodeChat({{"user", text}}, {}).status()).field, "messages");
  }
}

// Without a class of their own, or with another, tokenizers have no special tokens by default.
TEST_F(FolderFiles, TheClassOfATokenizerHasSpecialTokensThatNoFileNames) {
  const std::string source = "{{ bos_token }}{{ eos_token }}";
  const auto rendered = [&](const std::string& config, const std::string& tokenizer_config) {
    Clear();
    Write("tokenizer.json", ByteLevelTokenizer());
    Write("config.json", config);
    Write("tokenizer_config.json", tokenizer_config);
    Write("chat_template.jinja", source);
    const auto model = LoadOrDie();
    const auto chat = model->EncodeChat({{"user", "a"}}, {});
    return chat.ok() ? chat->text : std::string(chat.status().message());
  };
  const std::string llama = R"({"model_type": "llama"})";
  EXPECT_EQ(rendered(llama, "{}"), "");
  EXPECT_EQ(rendered(llama, R"({"tokenizer_class": "LlamaTokenizerFast"})"), "<s></s>");
  EXPECT_EQ(rendered(llama, R"({"tokenizer_class": "LlamaTokenizer", "eos_token": null})"), "<s>");
  EXPECT_EQ(rendered(llama, R"({"tokenizer_class": "PreTrainedTokenizerFast"})"), "");
  EXPECT_EQ(rendered(R"({"model_type": "mistral"})", R"({"tokenizer_class": "LlamaTokenizer"})"),
            "");
  EXPECT_EQ(rendered(R"({"model_type": "qwen2"})", R"({"tokenizer_class": "LlamaTokenizer"})"),
            "<|endoftext|>");
  EXPECT_EQ(rendered(R"({"model_type": "gemma2"})", "{}"), "<bos><eos>");
}

TEST_F(FolderFiles, MalformedFilesAreNamed) {
  Write("tokenizer.json", ByteLevelTokenizer());
  for (const auto& [name, content, field] : std::vector<std::array<std::string, 3>>{
           {"added_tokens.json", "[]", "added_tokens.json"},
           {"added_tokens.json", R"({"<x>": -1})", "added_tokens.json"},
           {"added_tokens.json", R"({"<x>": 4294967296})", "added_tokens.json"},
           {"special_tokens_map.json", R"({"pad_token": 3})", "special_tokens_map.json.pad_token"},
           {"special_tokens_map.json", R"({"extra_special_tokens": 3})",
            "special_tokens_map.json.extra_special_tokens"},
           {"tokenizer_config.json", R"({"split_special_tokens": "no"})",
            "tokenizer_config.json.split_special_tokens"},
           {"tokenizer_config.json", R"({"fast_tokenizer_files": ["tokenizer.4.0.0.json"]})",
            "tokenizer_config.json.fast_tokenizer_files"}}) {
    Write(name, content);
    EXPECT_EQ(FieldOfLoadError(), field) << content;
    fs::remove(folder_ / name);
  }
  // Where tokenizer_config.json lists the added tokens, these files are not opened.
  Write("tokenizer_config.json", R"({"added_tokens_decoder": {}})");
  Write("added_tokens.json", "[]");
  Write("special_tokens_map.json", "{");
  EXPECT_NE(LoadOrDie(), nullptr);
}

}  // namespace
}  // namespace valuescope::text
