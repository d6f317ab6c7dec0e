// config.json as data: both published layouts read the same, and whatever is not served is refused
// with the key that asks for it.
#include "model/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace valuescope::model {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json Older() {
  return json::parse(R"({
    "model_type": "llama", "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
    "max_position_embeddings": 8192, "rope_theta": 100000, "rope_scaling": null,
    "rms_norm_eps": 1e-05, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "hidden_act": "silu", "attention_bias": false, "eos_token_id": 2})");
}

json Newer() {
  json config = Older();
  for (const char* key : {"rope_theta", "rope_scaling", "torch_dtype"}) config.erase(key);
  config["rope_parameters"] = {{"rope_theta", 100000.0}, {"rope_type", "default"}};
  config["dtype"] = "bfloat16";
  config["head_dim"] = 64;
  config["eos_token_id"] = {2, 0};
  return config;
}

json With(const char* key, const json& value) {
  json config = Older();
  config[key] = value;
  return config;
}

json Without(const char* key) {
  json config = Older();
  config.erase(key);
  return config;
}

std::string Refusal(const std::string& text) {
  const absl::Status status = ParseArchitecture(text).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 200);
  return std::string(status.message());
}

std::string Refusal(const json& config) { return Refusal(config.dump()); }

void ExpectSmall(const absl::StatusOr<Architecture>& parsed) {
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->family, "llama");
  EXPECT_EQ(parsed->num_layers, 30);
  EXPECT_EQ(parsed->hidden, 576);
  EXPECT_EQ(parsed->intermediate, 1536);
  EXPECT_EQ(parsed->num_heads, 9);
  EXPECT_EQ(parsed->num_kv_heads, 3);
  EXPECT_EQ(parsed->head_dim, 64);
  EXPECT_EQ(parsed->vocabulary, 49152);
  EXPECT_EQ(parsed->max_positions, 8192);
  EXPECT_EQ(parsed->rope_theta, 100000.0);
  EXPECT_EQ(parsed->rms_norm_epsilon, 1e-5);
  EXPECT_TRUE(parsed->tied_embeddings);
}

TEST(ParseArchitecture, ReadsBothLayoutsAlike) {
  const auto older = ParseArchitecture(Older().dump());
  ExpectSmall(older);
  EXPECT_EQ(older->stored_dtype, DType::kBFloat16);
  EXPECT_EQ(older->eos_token_ids, (std::vector<int64_t>{2}));
  const auto newer = ParseArchitecture(Newer().dump());
  ExpectSmall(newer);
  EXPECT_EQ(newer->stored_dtype, DType::kBFloat16);
  EXPECT_EQ(newer->eos_token_ids, (std::vector<int64_t>{2, 0}));
}

TEST(ParseArchitecture, ReadsTheServedModel) {
  std::ifstream file(std::string(VALUESCOPE_CACHE_DIR) +
                     "/models/SmolLM2-135M-Instruct/config.json");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  ASSERT_FALSE(text.empty()) << "run docker/setup";
  ExpectSmall(ParseArchitecture(text));
}

TEST(ParseArchitecture, FillsInWhatTheFamilyDefaultsTo) {
  json config = Older();
  for (const char* key : {"num_key_value_heads", "rope_theta", "rms_norm_eps",
                          "tie_word_embeddings", "torch_dtype", "eos_token_id"}) {
    config.erase(key);
  }
  const auto parsed = ParseArchitecture(config.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->num_kv_heads, 9);
  EXPECT_EQ(parsed->head_dim, 64);
  EXPECT_EQ(parsed->rope_theta, 10000.0);
  EXPECT_EQ(parsed->rms_norm_epsilon, 1e-6);
  EXPECT_FALSE(parsed->tied_embeddings);
  EXPECT_EQ(parsed->stored_dtype, DType::kFloat32);
  EXPECT_TRUE(parsed->eos_token_ids.empty());
}

TEST(ParseArchitecture, RefusesSizesThatAreMissingOrImpossible) {
  for (const char* key : {"num_hidden_layers", "hidden_size", "intermediate_size",
                          "num_attention_heads", "vocab_size"}) {
    const std::string quoted = "\"" + std::string(key) + "\"";
    EXPECT_THAT(Refusal(Without(key)), HasSubstr(quoted + " is missing"));
    EXPECT_THAT(Refusal(With(key, nullptr)), HasSubstr(quoted + " is missing"));
    for (const json& bad :
         {json(0), json(-1), json(INT64_MAX), json(UINT64_MAX), json((1 << 24) + 1)}) {
      EXPECT_THAT(Refusal(With(key, bad)), HasSubstr(quoted + " is ")) << bad;
      EXPECT_THAT(Refusal(With(key, bad)), HasSubstr("allowed range is 1 to ")) << bad;
    }
    for (const json& bad : {json("576"), json(576.0), json(1e300), json::array(), json(true)}) {
      EXPECT_THAT(Refusal(With(key, bad)), HasSubstr(quoted + " is not an integer")) << bad;
    }
  }
  EXPECT_THAT(Refusal(With("num_hidden_layers", 1025)), HasSubstr("\"num_hidden_layers\" is 1025"));
  EXPECT_THAT(Refusal(With("num_key_value_heads", 0)), HasSubstr("\"num_key_value_heads\""));
  EXPECT_THAT(Refusal(With("max_position_embeddings", 0)),
              HasSubstr("\"max_position_embeddings\""));
  EXPECT_THAT(Refusal(With("head_dim", 5000)), HasSubstr("\"head_dim\""));
}

TEST(ParseArchitecture, RefusesHeadsThatDoNotFit) {
  EXPECT_THAT(Refusal(With("num_key_value_heads", 2)),
              HasSubstr("\"num_key_value_heads\" does not divide num_attention_heads"));
  EXPECT_THAT(Refusal(With("num_key_value_heads", 18)),
              HasSubstr("\"num_key_value_heads\" does not divide num_attention_heads"));
  EXPECT_THAT(Refusal(With("hidden_size", 577)),
              HasSubstr("\"num_attention_heads\" does not divide hidden_size"));
  EXPECT_THAT(Refusal(With("hidden_size", 27)), HasSubstr("\"head_dim\" is odd"));
  EXPECT_THAT(Refusal(With("head_dim", 63)), HasSubstr("\"head_dim\" is odd"));
  // With an explicit head_dim the width of the heads is free.
  json wide = With("head_dim", 128);
  wide["hidden_size"] = 577;
  EXPECT_TRUE(ParseArchitecture(wide.dump()).ok());
}

TEST(ParseArchitecture, RefusesFamiliesThatAreNotServed) {
  EXPECT_THAT(Refusal(With("model_type", "gpt2")), HasSubstr("\"model_type\" is \"gpt2\""));
  EXPECT_THAT(Refusal(With("model_type", "")), HasSubstr("served families: llama"));
  EXPECT_THAT(Refusal(Without("model_type")), HasSubstr("\"model_type\" is missing"));
  EXPECT_THAT(Refusal(With("model_type", 3)), HasSubstr("\"model_type\""));
  EXPECT_LT(Refusal(With("model_type", std::string(100'000, 'x'))).size(), 300u);
}

TEST(ParseArchitecture, RefusesRopeScalingInEveryPlace) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    for (const char* type_key : {"rope_type", "type"}) {
      for (const char* type : {"linear", "dynamic", "yarn", "llama3", "longrope"}) {
        EXPECT_THAT(Refusal(With(key, {{type_key, type}, {"factor", 8.0}})),
                    HasSubstr("\"" + std::string(key) + "\" asks for a kind of rope scaling"));
      }
    }
    EXPECT_THAT(Refusal(With(key, {{"rope_type", 4}})), HasSubstr("rope scaling"));
    EXPECT_THAT(Refusal(With(key, "llama3")), HasSubstr("is not an object"));
    EXPECT_TRUE(ParseArchitecture(With(key, {{"rope_type", "default"}}).dump()).ok());
  }
  json both = Newer();
  both["rope_scaling"] = {{"rope_type", "llama3"}, {"factor", 8.0}};
  EXPECT_THAT(Refusal(both), HasSubstr("\"rope_scaling\" asks for a kind of rope scaling"));
  // A factor scales whatever its kind is called.
  EXPECT_THAT(Refusal(With("rope_scaling", {{"factor", 2.0}})), HasSubstr("\"rope_scaling\""));
}

TEST(ParseArchitecture, RefusesNumbersThatAreNotPositive) {
  for (const char* key : {"rope_theta", "rms_norm_eps"}) {
    for (const json& bad : {json(0), json(-1.0)}) {
      EXPECT_THAT(Refusal(With(key, bad)), HasSubstr("must be a positive number"));
    }
    EXPECT_THAT(Refusal(With(key, "10000")), HasSubstr("is not a number"));
  }
  EXPECT_THAT(Refusal(With("rope_parameters", {{"rope_theta", -1}})), HasSubstr("\"rope_theta\""));
}

TEST(ParseArchitecture, RefusesWhatTheFamilyDoesNotHave) {
  EXPECT_THAT(Refusal(With("attention_bias", true)), HasSubstr("\"attention_bias\" is true"));
  EXPECT_THAT(Refusal(With("mlp_bias", true)), HasSubstr("\"mlp_bias\" is true"));
  EXPECT_THAT(Refusal(With("mlp_bias", "no")), HasSubstr("\"mlp_bias\" is not true or false"));
  EXPECT_THAT(Refusal(With("hidden_act", "gelu")), HasSubstr("\"hidden_act\""));
  EXPECT_THAT(Refusal(With("torch_dtype", "float8_e4m3fn")), HasSubstr("\"torch_dtype\""));
  EXPECT_THAT(Refusal(With("dtype", "int8")), HasSubstr("\"dtype\""));
  EXPECT_THAT(Refusal(With("eos_token_id", 49152)), HasSubstr("\"eos_token_id\""));
  EXPECT_THAT(Refusal(With("eos_token_id", {2, -1})), HasSubstr("\"eos_token_id\""));
  EXPECT_THAT(Refusal(With("eos_token_id", "</s>")), HasSubstr("\"eos_token_id\""));
}

TEST(ParseArchitecture, RefusesMalformedJson) {
  EXPECT_THAT(Refusal(std::string("")), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal(std::string("{\"model_type\": \"llama\"")), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal(std::string("[1]")), HasSubstr("is not an object"));
  EXPECT_THAT(Refusal(std::string(100'000, '[')), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(Refusal(std::string("{\"vocab_size\":1,\"vocab_size\":2}")),
              HasSubstr("\"vocab_size\" twice"));
}

}  // namespace
}  // namespace valuescope::model
