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
      for (const char* type : {"linear", "dynamic", "yarn", "longrope"}) {
        EXPECT_THAT(Refusal(With(key, {{type_key, type}, {"factor", 8.0}})),
                    HasSubstr("\"" + std::string(key) + "\" asks for a kind of rope scaling"));
      }
    }
    EXPECT_THAT(Refusal(With(key, {{"rope_type", 4}})), HasSubstr("rope_type that is no text"));
    EXPECT_THAT(Refusal(With(key, "llama3")), HasSubstr("is not an object"));
    EXPECT_TRUE(ParseArchitecture(With(key, {{"rope_type", "default"}}).dump()).ok());
  }
  json both = Newer();
  both["rope_scaling"] = {{"rope_type", "yarn"}, {"factor", 8.0}};
  EXPECT_THAT(Refusal(both), HasSubstr("\"rope_scaling\" asks for a kind of rope scaling"));
  // A factor scales whatever its kind is called.
  EXPECT_THAT(Refusal(With("rope_scaling", {{"factor", 2.0}})), HasSubstr("\"rope_scaling\""));
}

// --- The families, by configurations as they are published ---------------------------------------

Architecture Parsed(const char* text) {
  const auto parsed = ParseArchitecture(text);
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *parsed : Architecture();
}

TEST(ParseArchitecture, ReadsLlama32) {
  const Architecture a = Parsed(R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
    "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16,
    "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 32.0,
    "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3"}, "rope_theta": 500000.0, "tie_word_embeddings": true,
    "torch_dtype": "bfloat16", "vocab_size": 128256})");
  ASSERT_TRUE(a.long_rope.has_value());
  EXPECT_EQ(a.long_rope->factor, 32);
  EXPECT_EQ(a.long_rope->low_frequency_factor, 1);
  EXPECT_EQ(a.long_rope->high_frequency_factor, 4);
  EXPECT_EQ(a.long_rope->original_positions, 8192);
  EXPECT_EQ(a.rope_theta, 500000);
  EXPECT_FALSE(a.qkv_bias);
  EXPECT_EQ(a.attention_scale, 0.125);
}

TEST(ParseArchitecture, ReadsQwen25WhoseWindowIsSwitchedOff) {
  const Architecture a = Parsed(R"({"architectures": ["Qwen2ForCausalLM"], "eos_token_id": 151645,
    "hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864,
    "max_position_embeddings": 32768, "max_window_layers": 21, "model_type": "qwen2",
    "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_sliding_window": false,
    "vocab_size": 151936})");
  EXPECT_TRUE(a.qkv_bias);
  EXPECT_FALSE(a.output_bias);
  EXPECT_FALSE(a.head_norms);
  EXPECT_EQ(a.windows, std::vector<int64_t>(24, 0));
}

TEST(ParseArchitecture, Qwen2WithItsWindowSwitchedOnUsesItInTheUpperLayers) {
  const Architecture a = Parsed(R"({"hidden_size": 8, "intermediate_size": 8,
    "max_window_layers": 2, "model_type": "qwen2", "num_attention_heads": 2,
    "num_key_value_heads": 2, "num_hidden_layers": 4, "sliding_window": 16, "use_sliding_window": true,
    "vocab_size": 16})");
  EXPECT_EQ(a.windows, (std::vector<int64_t>{0, 0, 16, 16}));
}

TEST(ParseArchitecture, ReadsQwen3WithItsHeadNorms) {
  const Architecture a = Parsed(R"({"attention_bias": false, "eos_token_id": 151645,
    "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "intermediate_size": 3072,
    "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
    "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936})");
  EXPECT_TRUE(a.head_norms);
  EXPECT_FALSE(a.qkv_bias);
  EXPECT_EQ(a.head_dim, 128);
}

TEST(ParseArchitecture, ReadsMistralWithAndWithoutItsWindow) {
  const std::string text = R"({"hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
    "num_attention_heads": 32, "num_hidden_layers": 3, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": false,
    "vocab_size": 32000, "sliding_window": )";
  EXPECT_EQ(Parsed((text + "4096}").c_str()).windows, std::vector<int64_t>(3, 4096));
  EXPECT_EQ(Parsed((text + "null}").c_str()).windows, std::vector<int64_t>(3, 0));
}

TEST(ParseArchitecture, ReadsGemma2) {
  const Architecture a = Parsed(R"({"architectures": ["Gemma2ForCausalLM"],
    "attention_bias": false, "attn_logit_softcapping": 50.0, "cache_implementation": "hybrid",
    "eos_token_id": [1, 107], "final_logit_softcapping": 30.0, "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 2304, "intermediate_size": 9216, "max_position_embeddings": 8192,
    "model_type": "gemma2", "num_attention_heads": 8, "num_hidden_layers": 4,
    "num_key_value_heads": 4, "query_pre_attn_scalar": 144, "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "bfloat16",
    "vocab_size": 256000})");
  EXPECT_TRUE(a.tied_embeddings);  // this family's default
  EXPECT_TRUE(a.unit_offset_norms);
  EXPECT_TRUE(a.post_norms);
  EXPECT_EQ(a.embedding_scale, 48);
  EXPECT_DOUBLE_EQ(a.attention_scale, 1.0 / 12);
  EXPECT_EQ(a.attention_soft_cap, 50);
  EXPECT_EQ(a.final_soft_cap, 30);
  EXPECT_EQ(a.activation, Activation::kGeluTanh);
  EXPECT_EQ(a.windows, (std::vector<int64_t>{4096, 0, 4096, 0}));
}

TEST(ParseArchitecture, LayerTypesSayWhichLayersSeeAWindow) {
  json config = With("layer_types", json::array());
  config["model_type"] = "mistral";
  config["num_hidden_layers"] = 3;
  config["sliding_window"] = 7;
  EXPECT_THAT(Refusal(config), HasSubstr("\"layer_types\" does not list every layer"));
  config["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
  EXPECT_EQ(Parsed(config.dump().c_str()).windows, (std::vector<int64_t>{0, 7, 0}));
  config["layer_types"][0] = "chunked_attention";
  EXPECT_THAT(Refusal(config), HasSubstr("\"layer_types\" may hold"));
  config["layer_types"][0] = "sliding_attention";
  config["sliding_window"] = nullptr;
  EXPECT_THAT(Refusal(config), HasSubstr("sliding_window has none"));
}

TEST(ParseArchitecture, RefusesAnIncompleteLongRope) {
  json rope = {{"rope_type", "llama3"},
               {"factor", 8.0},
               {"low_freq_factor", 1.0},
               {"high_freq_factor", 4.0},
               {"original_max_position_embeddings", 8192}};
  EXPECT_TRUE(ParseArchitecture(With("rope_scaling", rope).dump()).ok());
  for (const char* key :
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    json without = rope;
    without.erase(key);
    EXPECT_THAT(Refusal(With("rope_scaling", without)), HasSubstr(std::string("lacks ") + key));
  }
  rope["low_freq_factor"] = 4.0;
  EXPECT_THAT(Refusal(With("rope_scaling", rope)), HasSubstr("high_freq_factor above"));
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
  json mistral = With("attention_bias", true);
  mistral["model_type"] = "mistral";
  EXPECT_THAT(Refusal(mistral), HasSubstr("\"attention_bias\" is true"));
  json qwen3 = With("mlp_bias", true);
  qwen3["model_type"] = "qwen3";
  EXPECT_THAT(Refusal(qwen3), HasSubstr("\"mlp_bias\" is true"));
  EXPECT_THAT(Refusal(With("quantization_config", {{"bits", 4}})),
              HasSubstr("\"quantization_config\""));
  EXPECT_THAT(Refusal(With("mlp_bias", "no")), HasSubstr("\"mlp_bias\" is not true or false"));
  EXPECT_THAT(Refusal(With("hidden_act", "gelu")), HasSubstr("\"hidden_act\""));
  EXPECT_THAT(Refusal(With("torch_dtype", "float8_e4m3fn")), HasSubstr("\"torch_dtype\""));
  EXPECT_THAT(Refusal(With("dtype", "int8")), HasSubstr("\"dtype\""));
  EXPECT_THAT(Refusal(With("eos_token_id", {2, -1})), HasSubstr("\"eos_token_id\""));
  EXPECT_THAT(Refusal(With("eos_token_id", "</s>")), HasSubstr("\"eos_token_id\""));
}

TEST(ParseArchitecture, RefusesMalformedJson) {
  EXPECT_THAT(Refusal(std::string("")), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal(std::string("{\"model_type\": \"llama\"")), HasSubstr("not valid JSON"));
  EXPECT_THAT(Refusal(std::string("[1]")), HasSubstr("is not an object"));
  EXPECT_THAT(Refusal(std::string(100'000, '[')), HasSubstr("nested deeper than 64"));
}

// With `piece` of the older layout's text written as `other`.
std::string Rewritten(const std::string& piece, const std::string& other) {
  std::string text = Older().dump();
  const size_t at = text.find(piece);
  EXPECT_NE(at, std::string::npos);
  return text.replace(at, piece.size(), other);
}

TEST(ParseArchitecture, ReadsJsonAsPythonDoes) {
  const auto twice = ParseArchitecture(
      Rewritten("\"num_hidden_layers\":30", "\"num_hidden_layers\":30,\"num_hidden_layers\":7"));
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_EQ(twice->num_layers, 7);
  for (const char* number :
       {"NaN", "Infinity", "-Infinity", "1e999", "1000000000000000000000000"}) {
    const auto unused =
        ParseArchitecture(Rewritten("{", "{\"time_limit\":[0," + std::string(number) + "],"));
    EXPECT_TRUE(unused.ok()) << unused.status();
    if (number[0] != '1' || number[1] == 'e') {
      EXPECT_THAT(
          Refusal(Rewritten("\"rope_theta\":100000", "\"rope_theta\":" + std::string(number))),
          HasSubstr("\"rope_theta\" is not a number"));
    }
  }
  EXPECT_THAT(Refusal("\xef\xbb\xbf" + Older().dump()), HasSubstr("byte order mark"));
}

TEST(ParseArchitecture, KnowsTheTypesByTheNamesThatTorchHas) {
  for (const auto& [name, dtype] :
       std::vector<std::pair<std::string, DType>>{{"float32", DType::kFloat32},
                                                  {"float", DType::kFloat32},
                                                  {"float16", DType::kFloat16},
                                                  {"half", DType::kFloat16},
                                                  {"bfloat16", DType::kBFloat16}}) {
    for (const char* key : {"torch_dtype", "dtype"}) {
      const auto parsed = ParseArchitecture(With(key, name).dump());
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      EXPECT_EQ(parsed->stored_dtype, dtype);
    }
  }
  for (const char* other : {"torch.bfloat16", "auto", "bf16", "float64", ""}) {
    EXPECT_THAT(Refusal(With("torch_dtype", other)), HasSubstr("remove the key")) << other;
  }
  EXPECT_TRUE(ParseArchitecture(With("dtype", nullptr).dump()).ok());
}

TEST(ParseArchitecture, HasNoEndBeyondTheVocabulary) {
  const auto parsed = ParseArchitecture(With("eos_token_id", {2, 49152}).dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->eos_token_ids, (std::vector<int64_t>{2}));
}

TEST(ParseArchitecture, FillsInTheKeyValueHeadsOfTheFamily) {
  for (const auto& [family, heads] : std::vector<std::pair<std::string, int64_t>>{
           {"llama", 64}, {"mistral", 8}, {"qwen2", 32}, {"qwen3", 32}, {"gemma2", 4}}) {
    json config = With("num_attention_heads", 64);
    config["head_dim"] = 8;
    config["model_type"] = family;
    if (family == "gemma2") config["hidden_act"] = "gelu_pytorch_tanh";
    config.erase("num_key_value_heads");
    const auto missing = ParseArchitecture(config.dump());
    ASSERT_TRUE(missing.ok()) << missing.status();
    EXPECT_EQ(missing->num_kv_heads, heads) << family;
    config["num_key_value_heads"] = nullptr;
    EXPECT_EQ(ParseArchitecture(config.dump())->num_kv_heads, 64) << family;
  }
}

// Older and newer keys that say different things, against transformers
// (tests/golden/make_folders.py).
TEST(ParseArchitecture, TurnsPositionsAsTransformersDoesWhicheverKeysAreThere) {
  json golden;
  std::ifstream(std::string(VALUESCOPE_SOURCE_DIR) + "/tests/golden/folders.json") >> golden;
  ASSERT_GE(golden["ropes"].size(), 200u);
  int refused = 0, scaled = 0;
  for (const json& entry : golden["ropes"]) {
    SCOPED_TRACE(entry[0].dump());
    json config = golden["rope_config"];
    config.update(entry[0]);
    const auto parsed = ParseArchitecture(config.dump());
    if (!parsed.ok()) {
      // A factor of no use: transformers leaves it out.
      EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("has a factor, but"));
      ++refused;
      continue;
    }
    const auto expected = entry[1].get<std::vector<double>>();
    EXPECT_EQ(parsed->rope_theta, expected[0]);
    ASSERT_EQ(parsed->long_rope.has_value(), expected.size() > 1);
    if (expected.size() == 1) continue;
    ++scaled;
    EXPECT_EQ(*parsed->long_rope, (LongRope{.factor = expected[1],
                                            .low_frequency_factor = expected[2],
                                            .high_frequency_factor = expected[3],
                                            .original_positions = expected[4]}));
  }
  EXPECT_EQ(refused, 24);
  EXPECT_GE(scaled, 80);
}

TEST(ParseArchitecture, RefusesRopesThatThisFamilyDoesNotTurn) {
  EXPECT_THAT(Refusal(With("partial_rotary_factor", 0.5)),
              HasSubstr("\"partial_rotary_factor\" is not 1"));
  EXPECT_THAT(Refusal(With("rope_parameters", {{"partial_rotary_factor", 0.25}})),
              HasSubstr("\"partial_rotary_factor\" is not 1"));
  EXPECT_TRUE(ParseArchitecture(With("partial_rotary_factor", 1).dump()).ok());
  EXPECT_TRUE(ParseArchitecture(With("partial_rotary_factor", nullptr).dump()).ok());
  EXPECT_THAT(Refusal(With("rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}},
                                               {"sliding_attention", {{"rope_theta", 1e4}}}})),
              HasSubstr("\"rope_parameters\" holds an object for \"full_attention\""));
  EXPECT_THAT(Refusal(With("rope_theta", nullptr)), HasSubstr("\"rope_theta\" is null"));
  EXPECT_THAT(Refusal(With("rope_parameters", {{"rope_theta", nullptr}})),
              HasSubstr("\"rope_theta\" is null"));
  EXPECT_THAT(Refusal(With("rope_scaling", {{"rope_type", nullptr}, {"type", "llama3"}})),
              HasSubstr("rope_type that is no text"));
}

TEST(ParseArchitecture, TakesAModelThatWasSavedWithoutItsHead) {
  EXPECT_TRUE(ParseArchitecture(With("architectures", {"LlamaModel"}).dump()).ok());
  EXPECT_THAT(Refusal(With("architectures", {"LlamaForTokenClassification"})),
              HasSubstr("\"architectures\" is"));
}

}  // namespace
}  // namespace valuescope::model
