#include "text/text_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "tests/text/small_tokenizers.h"
#include "text/streaming_decoder.h"

namespace valuescope::text {
namespace {

using testing::ElementsAre;

// A model's folder that lasts for one test.
class TextModelFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/text_model_" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
    Write("tokenizer.json", ByteLevelTokenizer());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(std::filesystem::path(folder_) / name, std::ios::binary) << content;
  }

  // Adds megabytes without writing them.
  void Grow(const std::string& name, int64_t bytes) {
    std::filesystem::resize_file(std::filesystem::path(folder_) / name, bytes);
  }

  std::unique_ptr<TextModel> LoadOrDie() {
    auto model = TextModel::Load(folder_);
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }

  std::string Rendered() {
    const auto encoded = LoadOrDie()->EncodeChat({{"user", "hello"}}, {});
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    return encoded.ok() ? encoded->text : "";
  }

  absl::Status ChatStatus() { return LoadOrDie()->EncodeChat({{"user", "hello"}}, {}).status(); }

  std::string FieldOfLoadError() {
    const absl::Status status = TextModel::Load(folder_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return DetailsOf(status).field;
  }

  std::string folder_;
};

TEST_F(TextModelFolder, EncodesTextWithTheTokenizersSpecialTokensAndChatsWithout) {
  Write("chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}");
  Write("tokenizer_config.json",
        R"({"bos_token": "<s>", "eos_token": {"content": "<|im_end|>", "special": true}})");
  const auto model = LoadOrDie();
  EXPECT_THAT(*model->EncodeText("hello"), ElementsAre(262, 259));
  const absl::Status too_long = model->EncodeText(std::string(kMostTextBytes + 1, 'a')).status();
  EXPECT_EQ(DetailsOf(too_long).field, "text");
  EXPECT_THAT(*model->EncodeText("hello", /*add_special_tokens=*/false), ElementsAre(259));
  const auto chat = model->EncodeChat({{"user", "hello"}}, {});
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(chat->text, "<s>hello<|im_end|>");
  EXPECT_THAT(chat->ids, ElementsAre(262, 259, 264));
}

TEST_F(TextModelFolder, TellsTheTokensThatItsTokenizerNamesFirstAndLast) {
  const auto first_and_last = [this](const std::string& config) {
    Write("tokenizer_config.json", config);
    const auto model = LoadOrDie();
    return std::pair(model->tokenizer_bos_id(), model->tokenizer_eos_id());
  };
  using Ids = std::pair<std::optional<int32_t>, std::optional<int32_t>>;
  EXPECT_EQ(first_and_last("{}"), Ids(std::nullopt, std::nullopt));
  EXPECT_EQ(first_and_last(R"({"bos_token": null, "eos_token": "<s>"})"), Ids(std::nullopt, 262));
  // An ordinary token, and one that nothing else knows.
  const std::string config = R"({"bos_token": "h", "eos_token": {"content": "<end>"}})";
  EXPECT_EQ(first_and_last(config), Ids(104, 267));
  Write("config.json", R"({"vocab_size": 267})");
  EXPECT_EQ(first_and_last(config), Ids(104, std::nullopt));
  // Ends of responses are another matter.
  EXPECT_THAT(LoadOrDie()->eos_ids(), testing::IsEmpty());
}

TEST_F(TextModelFolder, NamesTheMessagesThatItsTokenizerGivesUpOn) {
  nlohmann::json file = nlohmann::json::parse(ByteLevelTokenizer());
  file["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "^(a+)+$"}}}, {"content", "x"}};
  Write("tokenizer.json", file.dump());
  Write("chat_template.jinja", "{{ messages[0].content }}");
  const absl::Status status =
      LoadOrDie()->EncodeChat({{"user", std::string(40, 'a') + "!"}}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(DetailsOf(status).field, "messages");
}

TEST_F(TextModelFolder, PrefersTheTemplatesOwnFile) {
  Write("tokenizer_config.json", R"({"chat_template": "config"})");
  EXPECT_EQ(Rendered(), "config");
  EXPECT_EQ(LoadOrDie()->template_digest(), Sha256Hex("config"));
  Write("chat_template.jinja", "file");
  EXPECT_EQ(Rendered(), "file");
  EXPECT_EQ(LoadOrDie()->template_digest(), Sha256Hex("file"));
}

TEST_F(TextModelFolder, TakesTheDefaultOfSeveralTemplates) {
  Write("tokenizer_config.json",
        R"({"chat_template": [{"name": "tool_use", "template": "tools"},
            {"name": "default", "template": "plain"}]})");
  EXPECT_EQ(Rendered(), "plain");
}

TEST_F(TextModelFolder, LoadsWithoutATemplateOrWithABrokenOne) {
  EXPECT_EQ(DetailsOf(ChatStatus()).reason, "NO_CHAT_TEMPLATE");
  EXPECT_EQ(LoadOrDie()->template_digest(), "");
  Write("chat_template.jinja", "{% if %}");
  EXPECT_EQ(DetailsOf(ChatStatus()).reason, "CHAT_TEMPLATE_INVALID");
  EXPECT_EQ(ChatStatus().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(LoadOrDie()->EncodeText("hello").ok());
}

TEST_F(TextModelFolder, NamesTheFileThatIsWrong) {
  for (const char* content : {"", "[]", "{", "\xff", "{\"a\": 1,}"}) {
    Write("tokenizer_config.json", content);
    EXPECT_EQ(FieldOfLoadError(), "tokenizer_config.json");
  }
  Write("tokenizer_config.json", "{}");
  for (const char* ids : {"-1", "1.5", "\"a\"", "[true]", "4294967296", "{}"}) {
    Write("config.json", std::string(R"({"eos_token_id": )") + ids + "}");
    EXPECT_EQ(FieldOfLoadError(), "config.json.eos_token_id") << ids;
  }
  Write("config.json", std::string(1'000'000, '['));
  EXPECT_EQ(FieldOfLoadError(), "config.json");
  Write("config.json", "{}");
  Write("tokenizer.json", "{}");
  EXPECT_EQ(FieldOfLoadError(), "tokenizer.json");
  std::filesystem::remove(std::filesystem::path(folder_) / "tokenizer.json");
  EXPECT_EQ(FieldOfLoadError(), "tokenizer.json");
  std::filesystem::create_directory(std::filesystem::path(folder_) / "tokenizer.json");
  EXPECT_EQ(FieldOfLoadError(), "tokenizer.json");
}

TEST_F(TextModelFolder, AddsTheTokensThatItsConfigurationDeclares) {
  Write("tokenizer_config.json", R"({"image_token": "<img>", "pad_token": "h"})");
  Write("chat_template.jinja", "{{ image_token }}{{ messages[0].content }}");
  const auto model = LoadOrDie();
  EXPECT_EQ(model->tokenizer().AddedTokenId("<img>"), 267);
  EXPECT_THAT(*model->EncodeText("h<img>", false), ElementsAre(104, 267));
  EXPECT_EQ(*model->tokenizer().Decode({104, 267, 259}, /*skip_special_tokens=*/true), "hello");
  StreamingDecoder decoder(model->tokenizer(), /*skip_special_tokens=*/true);
  EXPECT_EQ(*decoder.Push(104) + *decoder.Push(267) + *decoder.Push(259), "hello");
  EXPECT_EQ(Rendered(), "<img>hello");
}

TEST_F(TextModelFolder, CleansUpSpacesWhereItsConfigurationSaysSo) {
  const auto decoded = [this] {
    const auto model = LoadOrDie();
    const auto ids = model->EncodeText("a .", /*add_special_tokens=*/false);
    return *model->tokenizer().Decode(*ids, /*skip_special_tokens=*/true);
  };
  Write("tokenizer_config.json", R"({"clean_up_tokenization_spaces": true})");
  EXPECT_EQ(decoded(), "a .");  // byte-pair encoding
  Write("tokenizer_config.json", R"({"clean_up_tokenization_spaces": true,
      "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": true})");
  EXPECT_EQ(decoded(), "a.");
}

TEST_F(TextModelFolder, RefusesMalformedDeclaredTokens) {
  for (const char* config :
       {R"({"added_tokens_decoder": []})", R"({"added_tokens_decoder": {"x": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"1": "a"}})", R"({"added_tokens_decoder": {"1": {}}})",
        R"({"added_tokens_decoder": {"99999999999999999999": {"content": "a"}}})",
        R"({"added_tokens_decoder": {"1": {"content": "a", "special": 1}}})",
        R"({"extra_special_tokens": 1})", R"({"extra_special_tokens": [1]})",
        R"({"additional_special_tokens": [{"content": 2}]})"}) {
    Write("tokenizer_config.json", config);
    EXPECT_THAT(FieldOfLoadError(), testing::StartsWith("tokenizer_config.json.")) << config;
  }
  Write("tokenizer_config.json", R"({"extra_special_tokens": ["", "a", "a"], "pad_token": ""})");
  LoadOrDie();
}

TEST_F(TextModelFolder, RefusesMoreDeclaredTokensThanAnyModelHas) {
  const nlohmann::json long_one = {{"extra_special_tokens", {std::string(2 << 20, 'a')}}};
  Write("tokenizer_config.json", long_one.dump());
  EXPECT_EQ(FieldOfLoadError(), "tokenizer_config.json");
  nlohmann::json many = nlohmann::json::array();
  for (int i = 0; i < 100'000; ++i) many.push_back(absl::StrCat(i));
  Write("tokenizer_config.json", nlohmann::json{{"extra_special_tokens", many}}.dump());
  EXPECT_EQ(FieldOfLoadError(), "tokenizer_config.json");
  many.erase(many.begin() + 60'000, many.end());
  Write("tokenizer_config.json", nlohmann::json{{"extra_special_tokens", many}}.dump());
  EXPECT_EQ(LoadOrDie()->tokenizer().AddedTokenId("59999").has_value(), true);
}

TEST_F(TextModelFolder, RefusesDeepJsonThatIsValid) {
  const int depth = 1'000'000;
  Write("config.json", R"({"a": )" + std::string(depth, '[') + std::string(depth, ']') +
                           R"(, "eos_token_id": 3})");
  EXPECT_EQ(FieldOfLoadError(), "config.json");
}

TEST_F(TextModelFolder, RefusesFilesOverTheirSize) {
  Write("chat_template.jinja", "x");
  Grow("chat_template.jinja", (1 << 20) + 1);
  EXPECT_EQ(ChatStatus().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(ChatStatus().message()), testing::HasSubstr("1048576 are allowed"));
  Grow("tokenizer.json", (256LL << 20) + 1);
  EXPECT_EQ(FieldOfLoadError(), "tokenizer.json");
}

TEST_F(TextModelFolder, SaysNothingOfTheHostsPaths) {
  std::filesystem::remove(std::filesystem::path(folder_) / "tokenizer.json");
  EXPECT_THAT(std::string(TextModel::Load(folder_).status().message()),
              testing::Not(testing::HasSubstr("/")));
}

// The real model, where it has been installed.
class SmolLm2Text : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* folder = std::getenv("VALUESCOPE_SMOLLM2");
    const std::string path =
        folder != nullptr ? folder : VALUESCOPE_CACHE_DIR "/models/SmolLM2-135M-Instruct";
    if (!std::filesystem::exists(path)) return;
    auto model = TextModel::Load(path);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
  }
  static void TearDownTestSuite() { delete model_; }
  void SetUp() override {
    if (model_ == nullptr) GTEST_SKIP() << "SmolLM2 is not installed: run docker/setup";
  }

  static const TextModel* model_;
};

const TextModel* SmolLm2Text::model_ = nullptr;

TEST_F(SmolLm2Text, KnowsItsIds) {
  EXPECT_EQ(model_->tokenizer().vocabulary_size(), 49152);
  EXPECT_THAT(model_->eos_ids(), ElementsAre(2));
}

TEST_F(SmolLm2Text, InsertsItsDefaultSystemMessageOnlyWhereThereIsNone) {
  const auto none = model_->EncodeChat({{"user", "Hi"}}, {});
  const auto empty = model_->EncodeChat({{"system", ""}, {"user", "Hi"}}, {});
  ASSERT_TRUE(none.ok() && empty.ok());
  EXPECT_THAT(none->text, testing::HasSubstr("You are a helpful AI assistant"));
  EXPECT_EQ(empty->text,
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(empty->ids.front(), 1);
}

TEST_F(SmolLm2Text, StreamsRandomIdsAsItDecodesThem) {
  std::mt19937 random(11);
  const Tokenizer& tokenizer = model_->tokenizer();
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> ids(random() % 100);
    // The first ids are special tokens and single bytes.
    const int limit = round % 2 == 0 ? 49152 : 300;
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % limit);
    for (const bool skip : {false, true}) {
      StreamingDecoder decoder(tokenizer, skip);
      std::string joined;
      for (const int32_t id : ids) joined += *decoder.Push(id);
      EXPECT_EQ(joined + *decoder.Flush(), *tokenizer.Decode(ids, skip));
    }
  }
}

// What transformers gives for the same tokenizer and template files (golden/make_smollm2_text.py).
class SmolLm2Golden : public SmolLm2Text {
 protected:
  static std::vector<ChatMessage> Messages(const nlohmann::json& pairs) {
    std::vector<ChatMessage> messages;
    for (const auto& pair : pairs) messages.push_back({pair[0], pair[1]});
    return messages;
  }

  void SetUp() override {
    std::ifstream file(VALUESCOPE_SOURCE_DIR "/tests/text/golden/smollm2_text.json");
    golden_ = nlohmann::json::parse(file);
    SmolLm2Text::SetUp();
  }

  nlohmann::json golden_;
};

TEST_F(SmolLm2Golden, TextsHaveTheReferencesIds) {
  ASSERT_GT(golden_["texts"].size(), 100u);
  for (const auto& text : golden_["texts"]) {
    EXPECT_EQ(*model_->EncodeText(text["text"].get<std::string>()),
              text["ids"].get<std::vector<int32_t>>())
        << text["text"];
  }
}

TEST_F(SmolLm2Golden, IdsHaveTheReferencesText) {
  for (const auto& decoded : golden_["decoded"]) {
    EXPECT_EQ(*model_->tokenizer().Decode(decoded["ids"].get<std::vector<int32_t>>(),
                                          decoded["skip_special_tokens"].get<bool>()),
              decoded["text"].get<std::string>());
  }
}

TEST_F(SmolLm2Golden, ChatsHaveTheReferencesTextAndIds) {
  for (const auto& chat : golden_["chats"]) {
    const auto encoded =
        model_->EncodeChat(Messages(chat["messages"]),
                           {.add_generation_prompt = chat["add_generation_prompt"].get<bool>()});
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_EQ(encoded->text, chat["text"].get<std::string>());
    EXPECT_EQ(encoded->ids, chat["ids"].get<std::vector<int32_t>>());
  }
}

TEST_F(SmolLm2Golden, TemplateFeaturesRenderAsInTheReference) {
  // Ordered: the reference keeps the order of keys.
  std::ifstream file(VALUESCOPE_SOURCE_DIR "/tests/text/golden/smollm2_text.json");
  const auto ordered = nlohmann::ordered_json::parse(file);
  const std::string arguments = nlohmann::ordered_json{{"value", ordered["value"]}}.dump();
  for (const auto& snippet : golden_["snippets"]) {
    const auto chat_template =
        ChatTemplate::Compile(snippet["source"].get<std::string>(),
                              {{"bos_token", "<|im_start|>"}, {"eos_token", "<|im_end|>"}});
    ASSERT_TRUE(chat_template.ok()) << chat_template.status();
    const auto text =
        (*chat_template)->Render(Messages(snippet["messages"]), {.template_arguments = arguments});
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, snippet["text"].get<std::string>()) << snippet["source"];
  }
}

}  // namespace
}  // namespace valuescope::text
