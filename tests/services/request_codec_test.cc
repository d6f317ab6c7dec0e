#include "services/request_codec.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "services/prompt_codec.h"
#include "tests/services/scripted_engine.h"

namespace valuescope::services {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

class RequestCodecTest : public testing::Test {
 protected:
  RequestCodecTest() {
    model_.architecture.num_layers = 4;
    model_.architecture.hidden = 2;
    model_.architecture.intermediate = 3;
    model_.architecture.vocabulary = 10;
    model_.engine = std::make_shared<ScriptedEngine>();
  }

  engine::ServedModel model_;
};

// Others have what is not here.
class SharedModels : public OneModel {
 public:
  explicit SharedModels(int others)
      : OneModel(std::make_shared<ScriptedEngine>()), others_(others) {}
  std::vector<std::string> ReadyElsewhere(absl::string_view) const override {
    std::vector<std::string> names;
    for (int i = 0; i < others_; ++i) names.push_back(absl::StrCat("server-", i));
    return names;
  }

 private:
  const int others_;
};

TEST(ModelOfName, TellsOfOneThatIsNotHereWhichServersHaveIt) {
  const auto refusal = [](int others, const std::string& model) {
    return ModelOfName("model", model, SharedModels(others)).status();
  };
  EXPECT_TRUE(ModelOfName("model", "models/m", SharedModels(2)).ok());
  const absl::Status here = refusal(0, "models/other");
  EXPECT_FALSE(here.ok());
  for (const int others : {1, 12}) {
    const absl::Status told = refusal(others, "models/other");
    EXPECT_EQ(told.code(), here.code());
    EXPECT_EQ(DetailsOf(told).reason, DetailsOf(here).reason);
    EXPECT_THAT(std::string(told.message()), testing::StartsWith(std::string(here.message())));
  }
  EXPECT_THAT(std::string(refusal(1, "models/other").message()),
              testing::EndsWith("of the servers that share the store `server-0` has it READY"));
  EXPECT_THAT(std::string(refusal(12, "models/other").message()),
              testing::EndsWith("`server-7` and 4 more have it READY"));
  EXPECT_EQ(refusal(1, "vectors/other"), refusal(0, "vectors/other")) << "no model is named";
}

TEST_F(RequestCodecTest, TapsReadEverythingUnlessTold) {
  google::protobuf::RepeatedPtrField<v1::Tap> protos;
  protos.Add();
  *protos.Add() = Parse<v1::Tap>("site: SITE_EMBEDDING reduction: REDUCTION_MEAN");
  const auto taps = TapsFromProto(protos, model_);
  ASSERT_TRUE(taps.ok()) << taps.status();
  EXPECT_THAT((*taps)[0].layers, ElementsAre(0, 1, 2, 3));
  EXPECT_EQ((*taps)[0].tokens.kind, engine::TokenKind::kAll);
  EXPECT_EQ((*taps)[0].reduction, engine::Reduction::kNone);
  EXPECT_THAT((*taps)[1].layers, SizeIs(0));
  EXPECT_EQ((*taps)[1].reduction, engine::Reduction::kMean);
}

TEST_F(RequestCodecTest, TokenIdsAreCheckedAgainstTheVocabulary) {
  const auto bad = PromptFromProto("prompt", Parse<v1::Prompt>("token_ids { ids: 9 ids: 10 }"),
                                   model_, {.now = absl::UnixEpoch()});
  EXPECT_EQ(DetailsOf(bad.status()).field, "prompt.token_ids.ids[1]");
  EXPECT_THAT(std::string(bad.status().message()), HasSubstr("0 to 9"));
  EXPECT_EQ(
      DetailsOf(PromptFromProto("prompt", {}, model_, {.now = absl::UnixEpoch()}).status()).field,
      "prompt");
  EXPECT_EQ(
      DetailsOf(
          ResponseFromProto("r", Parse<v1::Response>("token_ids { ids: -1 }"), model_).status())
          .field,
      "r.token_ids.ids[0]");
}

TEST_F(RequestCodecTest, TemplateArgumentsAreFiniteAndSet) {
  for (const char* value :
       {"number_value: nan", "number_value: inf", "number_value: -inf", "",
        "list_value { values { bool_value: true } values { number_value: inf } }",
        "struct_value { fields { key: 'b' value { list_value { values {} } } } }"}) {
    const auto prompt = Parse<v1::Prompt>(absl::StrCat(
        "chat { messages { role: 'user' } template_arguments { fields { key: 'a' value { ", value,
        " } } } }"));
    const absl::Status status =
        PromptFromProto("prompt", prompt, model_, {.now = absl::UnixEpoch()}).status();
    EXPECT_EQ(DetailsOf(status).field, "prompt.chat.template_arguments") << value;
  }
}

TEST_F(RequestCodecTest, TemplateArgumentsAreBounded) {
  v1::Prompt prompt = Parse<v1::Prompt>("chat { messages { role: 'user' } }");
  (*prompt.mutable_chat()->mutable_template_arguments()->mutable_fields())["a"].set_string_value(
      std::string(1 << 20, 'a'));
  const absl::Status status =
      PromptFromProto("prompt", prompt, model_, {.now = absl::UnixEpoch()}).status();
  EXPECT_EQ(DetailsOf(status).field, "prompt.chat.template_arguments");
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 1048576"));
}

TEST_F(RequestCodecTest, ChatsAreBoundedBeforeTheyAreCopied) {
  v1::Prompt prompt;
  for (int i = 0; i < 4097; ++i) prompt.mutable_chat()->add_messages();
  const absl::Status many =
      PromptFromProto("prompt", prompt, model_, {.now = absl::UnixEpoch()}).status();
  EXPECT_EQ(DetailsOf(many).field, "prompt.chat.messages");
  EXPECT_THAT(std::string(many.message()), HasSubstr("1 to 4096"));
}

TEST_F(RequestCodecTest, ChatsCountAllTheirText) {
  const auto chat = Parse<v1::Chat>(R"pb(
    messages {
      role: "a"
      content_parts {
        parts { text: "bc" }
        parts { text: "d" }
      }
      reasoning_content: "e"
      name: "f"
      tool_call_id: "g"
      tool_calls {
        id: "h"
        type: "i"
        function { name: "j" arguments: "{}" }
      }
    })pb");
  EXPECT_EQ(SizeOf(chat).bytes, 12u);
  EXPECT_EQ(SizeOf(chat).parts, 3u);
  EXPECT_EQ(SizeOf(chat).messages, 1u);
}

TEST_F(RequestCodecTest, ChatsSayWhatIsWrongWithThem) {
  const struct {
    const char* chat;
    const char* field;
  } cases[] = {
      {"messages { content: 'a' content_parts {} }", "prompt.chat.messages[0]"},
      {"messages { content: 'a' empty_content: EMPTY_CONTENT_NONE }", "prompt.chat.messages[0]"},
      {"messages {} messages { content_parts { parts {} } }",
       "prompt.chat.messages[1].content_parts.parts[0]"},
      {"messages { tool_calls {} }", "prompt.chat.messages[0].tool_calls[0].function"},
      {"messages { tool_calls { function { arguments: '{' } } }",
       "prompt.chat.messages[0].tool_calls[0].function.arguments"},
      {"messages { tool_calls { function { arguments: '' } } }",
       "prompt.chat.messages[0].tool_calls[0].function.arguments"},
      {"messages {} template_arguments_json: '[]'", "prompt.chat.template_arguments_json"},
      {"messages {} template_arguments_json: '{\"a\": 1, \"a\": 1}'",
       "prompt.chat.template_arguments_json"},
      {"messages {} template_arguments_json: '{\"a\": 1}' template_arguments { fields { key: 'a' "
       "value { bool_value: true } } }",
       "prompt.chat.template_arguments_json"},
      {"messages {} tools: '{}' tools: '1'", "prompt.chat.tools[1]"},
      {"messages {} documents: 'x'", "prompt.chat.documents[0]"},
      {"messages {} tools: '{}' template_arguments_json: '{\"tools\": []}'", "prompt.chat.tools"},
  };
  for (const auto& [chat, field] : cases) {
    const auto prompt = Parse<v1::Prompt>(absl::StrCat("chat { ", chat, " }"));
    const absl::Status status =
        PromptFromProto("prompt", prompt, model_, {.now = absl::UnixEpoch()}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << chat;
    EXPECT_EQ(DetailsOf(status).field, field) << chat;
  }
}

TEST_F(RequestCodecTest, SamplingTakesDefaultsOnlyForWhatIsNotGiven) {
  engine::Sampling sampling = SamplingFromProto({}, std::nullopt, /*room=*/1000);
  EXPECT_EQ(sampling.max_tokens, 256);
  EXPECT_EQ(sampling.temperature, 1);
  EXPECT_EQ(sampling.top_p, 1);
  EXPECT_EQ(sampling.repetition_penalty, 1);
  EXPECT_EQ(sampling.top_logprobs, -1);
  EXPECT_EQ(SamplingFromProto({}, std::nullopt, /*room=*/7).max_tokens, 7);
  sampling = SamplingFromProto(
      Parse<v1::SamplingParams>("max_tokens: 0 temperature: 0 top_p: 0 repetition_penalty: 0 "
                                "seed: 0"),
      0, /*room=*/1000);
  EXPECT_EQ(sampling.max_tokens, 0);  // explicit, so the engine refuses it
  EXPECT_EQ(sampling.temperature, 0);
  EXPECT_EQ(sampling.top_p, 0);
  EXPECT_EQ(sampling.repetition_penalty, 0);
  EXPECT_EQ(sampling.seed, 0u);
  EXPECT_EQ(sampling.top_logprobs, 0);
}

TEST_F(RequestCodecTest, CompletionsHaveSeedsOfTheirOwnAndTheFirstHasTheRequests) {
  std::set<uint64_t> seeds;
  for (int i = 0; i < 64; ++i) seeds.insert(SeedOfCompletion(7, i));
  EXPECT_THAT(seeds, SizeIs(64));
  EXPECT_EQ(SeedOfCompletion(7, 0), 7u);
}

TEST_F(RequestCodecTest, NamesAreCollectionAndId) {
  EXPECT_EQ(*IdOfName("f", "models", "models/a.b-c"), "a.b-c");
  for (const char* bad :
       {"", "models", "models/", "vectors/a", "models/../x", "models/a/b", "modelsx/a"}) {
    const auto id = IdOfName("f", "models", bad);
    EXPECT_EQ(id.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_EQ(DetailsOf(id.status()).field, "f") << bad;
  }
}

}  // namespace
}  // namespace valuescope::services
