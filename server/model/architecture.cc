#include "model/architecture.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/strict_json.h"

namespace valuescope::model {
namespace {

using nlohmann::json;

constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeadDim = 4096;
// Of a cosine and a sine for every position and pair of a head: a million positions with heads of
// 256.
constexpr int64_t kMaxRotationBytes = int64_t{1} << 30;

absl::Status Refused(absl::string_view key, absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kInvalidArgument, "UNSUPPORTED_MODEL",
                         absl::StrCat("config.json: \"", key, "\" ", why));
}

bool Has(const json& object, const char* key) {
  return object.contains(key) && !object[key].is_null();
}

absl::StatusOr<int64_t> Size(const json& config, const char* key, int64_t limit,
                             std::optional<int64_t> fallback = std::nullopt) {
  if (!Has(config, key)) {
    if (fallback) return *fallback;
    return Refused(key, "is missing");
  }
  if (!config[key].is_number_integer()) return Refused(key, "is not an integer");
  const int64_t value = config[key].get<int64_t>();  // beyond 63 bits: negative
  if (value < 1 || value > limit) {
    return Refused(key, absl::StrCat("is ", config[key].dump(), ", allowed range is 1 to ", limit));
  }
  return value;
}

absl::StatusOr<int64_t> WholeNumber(const json& config, const char* key, int64_t fallback) {
  if (!Has(config, key)) return fallback;
  if (!config[key].is_number_integer() || config[key].get<int64_t>() < 0) {
    return Refused(key, "is not a whole number");
  }
  return config[key].get<int64_t>();
}

absl::StatusOr<double> Positive(const json& config, const char* key, double fallback) {
  if (!Has(config, key)) return fallback;
  if (!config[key].is_number()) return Refused(key, "is not a number");
  const double value = config[key].get<double>();
  if (!(value > 0) || !std::isfinite(value)) return Refused(key, "must be a positive number");
  return value;
}

absl::StatusOr<bool> Flag(const json& config, const char* key, bool fallback) {
  if (!Has(config, key)) return fallback;
  if (!config[key].is_boolean()) return Refused(key, "is not true or false");
  return config[key].get<bool>();
}

// What the families have that config.json does not say, and what it means where it says nothing:
// the defaults of transformers' configuration classes.
struct Family {
  const char* name = "";
  int64_t max_positions = 0;
  bool tied_embeddings = false;
  bool gemma = false;            // unit-offset norms, post-norms, scaled embedding, soft caps
  bool qkv_bias = false;         // always there
  bool optional_biases = false;  // attention_bias gives all four projections one
  bool head_norms = false;
  int64_t num_kv_heads = 0;    // where the key is missing; 0: num_attention_heads
  int64_t head_dim = 0;        // 0: hidden_size / num_attention_heads
  int64_t default_window = 0;  // where sliding_window is missing; 0: none
};

constexpr Family kFamilies[] = {
    {.name = "llama", .max_positions = 2048, .optional_biases = true},
    {.name = "qwen2", .max_positions = 32768, .qkv_bias = true, .num_kv_heads = 32},
    {.name = "qwen3",
     .max_positions = 32768,
     .optional_biases = true,
     .head_norms = true,
     .num_kv_heads = 32,
     .head_dim = 128},
    {.name = "mistral", .max_positions = 131072, .num_kv_heads = 8, .default_window = 4096},
    {.name = "gemma2",
     .max_positions = 8192,
     .tied_embeddings = true,
     .gemma = true,
     .optional_biases = true,
     .num_kv_heads = 4,
     .head_dim = 256,
     .default_window = 4096},
};

absl::StatusOr<const Family*> FamilyOf(const json& config) {
  if (!Has(config, "model_type")) return Refused("model_type", "is missing");
  if (!config["model_type"].is_string()) return Refused("model_type", "is not a string");
  const std::string name = config["model_type"].get<std::string>();
  std::vector<absl::string_view> served;
  for (const Family& family : kFamilies) {
    if (name == family.name) return &family;
    served.push_back(family.name);
  }
  return Refused("model_type", absl::StrCat("is \"", name.substr(0, 64),
                                            "\"; served families: ", absl::StrJoin(served, ", ")));
}

// The class that the folder was saved from: one that ends in an unembedding, or the model within
// it, to which an unembedding that is tied or stored makes a whole one.
absl::Status CheckArchitectures(const json& config) {
  if (!Has(config, "architectures")) return absl::OkStatus();
  const json& names = config["architectures"];
  if (!names.is_array() || names.size() != 1 || !names[0].is_string()) {
    return Refused("architectures", "is not a list of one name");
  }
  const std::string name = names[0].get<std::string>();
  if (absl::EndsWith(name, "ForCausalLM") || absl::EndsWith(name, "Model")) return absl::OkStatus();
  return Refused("architectures",
                 absl::StrCat("is \"", name.substr(0, 64),
                              "\"; served are those that end in ForCausalLM or Model"));
}

absl::Status ReadLongRope(const char* key, const json& config, const json& rope,
                          Architecture& architecture) {
  LongRope long_rope;
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, double*>>{
           {"factor", &long_rope.factor},
           {"low_freq_factor", &long_rope.low_frequency_factor},
           {"high_freq_factor", &long_rope.high_frequency_factor},
           {"original_max_position_embeddings", &long_rope.original_positions}}) {
    // At the top it takes the place of the one within.
    const bool at_the_top = value == &long_rope.original_positions && config.contains(name);
    const json& source = at_the_top ? config : rope;
    if (!Has(source, name)) return Refused(key, absl::StrCat("lacks ", name));
    VS_ASSIGN_OR_RETURN(*value, Positive(source, name, 0));
  }
  if (long_rope.low_frequency_factor >= long_rope.high_frequency_factor) {
    return Refused(key, "needs a high_freq_factor above its low_freq_factor");
  }
  architecture.long_rope = long_rope;
  return absl::OkStatus();
}

// The key whose object says how positions are rotated: an older rope_scaling that holds anything
// takes the place of a newer rope_parameters as a whole. Null where neither holds anything.
absl::StatusOr<const char*> RopeKey(const json& config) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!Has(config, key)) continue;
    if (!config[key].is_object()) return Refused(key, "is not an object");
    if (!config[key].empty()) return key;
  }
  return nullptr;
}

// "rope_type" comes before the older "type".
absl::StatusOr<std::string> RopeType(const char* key, const json& rope) {
  for (const char* name : {"rope_type", "type"}) {
    if (!rope.contains(name)) continue;
    if (!rope[name].is_string())
      return Refused(key, absl::StrCat("has a ", name, " that is no text"));
    return rope[name].get<std::string>();
  }
  return "default";
}

// All of a head turns, in every layer alike.
absl::Status CheckRopeIsWhole(const char* key, const json& config, const json& rope) {
  for (const json* source : {&rope, &config}) {
    if (Has(*source, "partial_rotary_factor") && (*source)["partial_rotary_factor"] != 1.0) {
      return Refused(
          "partial_rotary_factor",
          "is not 1, but this family turns all of a head; remove the key or set it to 1");
    }
  }
  for (const auto& [name, value] : rope.items()) {
    if (value.is_object()) {
      return Refused(key, absl::StrCat("holds an object for \"", name.substr(0, 64),
                                       "\", but this family turns every layer alike"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const json& config, Architecture& architecture) {
  VS_ASSIGN_OR_RETURN(const char* const key, RopeKey(config));
  const json rope = key == nullptr ? json::object() : config[key];
  const char* const source = key == nullptr ? "rope_theta" : key;
  VS_RETURN_IF_ERROR(CheckRopeIsWhole(source, config, rope));
  VS_ASSIGN_OR_RETURN(const std::string type, RopeType(source, rope));
  if (type == "llama3") {
    VS_RETURN_IF_ERROR(ReadLongRope(source, config, rope, architecture));
  } else if (type != "default") {
    return Refused(source,
                   "asks for a kind of rope scaling that is not served; served are "
                   "\"default\" and \"llama3\"");
  } else if (Has(rope, "factor")) {
    return Refused(source, "has a factor, but its rope_type is \"default\"");
  }
  const json& holder = rope.contains("rope_theta") ? rope : config;
  if (holder.contains("rope_theta") && holder["rope_theta"].is_null()) {
    return Refused("rope_theta", "is null; write its value, or remove the key where it is 10000");
  }
  VS_ASSIGN_OR_RETURN(architecture.rope_theta, Positive(holder, "rope_theta", 10000.0));
  return absl::OkStatus();
}

// Which layers see a window only: newer folders list it, for older ones the family knows.
absl::Status ReadWindows(const json& config, const Family& family, Architecture& architecture) {
  architecture.windows.assign(architecture.num_layers, 0);
  const absl::string_view name = family.name;
  int64_t window = family.default_window;
  if (config.contains("sliding_window")) {
    window = 0;
    if (!config["sliding_window"].is_null()) {
      VS_ASSIGN_OR_RETURN(window, Size(config, "sliding_window", kMaxDimension));
    }
  }
  if (absl::StartsWith(name, "qwen")) {
    VS_ASSIGN_OR_RETURN(const bool used, Flag(config, "use_sliding_window", false));
    if (!used) window = 0;
  }
  if (name == "llama") window = 0;
  if (Has(config, "layer_types")) {
    const json& types = config["layer_types"];
    if (!types.is_array() || types.size() != architecture.windows.size()) {
      return Refused("layer_types", "does not list every layer");
    }
    for (size_t layer = 0; layer < types.size(); ++layer) {
      if (types[layer] == "sliding_attention") {
        if (window == 0)
          return Refused("layer_types", "asks for a window, but sliding_window has none");
        architecture.windows[layer] = window;
      } else if (types[layer] != "full_attention") {
        return Refused("layer_types", "may hold \"full_attention\" and \"sliding_attention\"");
      }
    }
    return absl::OkStatus();
  }
  int64_t first = 0;
  if (absl::StartsWith(name, "qwen") && window > 0) {
    VS_ASSIGN_OR_RETURN(first, WholeNumber(config, "max_window_layers", 28));
  }
  const int stride = family.gemma ? 2 : 1;
  for (int64_t layer = first; layer < architecture.num_layers; layer += stride) {
    architecture.windows[layer] = window;
  }
  return absl::OkStatus();
}

absl::Status ReadActivation(const json& config, const Family& family, Architecture& architecture) {
  const char* key = Has(config, "hidden_activation") ? "hidden_activation" : "hidden_act";
  const char* expected = family.gemma ? "gelu_pytorch_tanh" : "silu";
  if (Has(config, key) && config[key] != expected) {
    return Refused(key, absl::StrCat("is not \"", expected, "\", the activation of this family"));
  }
  architecture.activation = family.gemma ? Activation::kGeluTanh : Activation::kSilu;
  return absl::OkStatus();
}

absl::Status ReadBiases(const json& config, const Family& family, Architecture& architecture) {
  VS_ASSIGN_OR_RETURN(const bool attention, Flag(config, "attention_bias", false));
  VS_ASSIGN_OR_RETURN(const bool mlp, Flag(config, "mlp_bias", false));
  if (attention && !family.optional_biases && !family.qkv_bias) {
    return Refused("attention_bias", "is true, which this family does not have");
  }
  if (mlp && absl::string_view(family.name) != "llama") {
    return Refused("mlp_bias", "is true, which this family does not have");
  }
  architecture.qkv_bias = family.qkv_bias || attention;
  architecture.output_bias = family.optional_biases && attention;
  architecture.mlp_bias = mlp;
  return absl::OkStatus();
}

// A soft cap of null is none; a missing one is the family's.
absl::StatusOr<double> SoftCap(const json& config, const char* key, double fallback) {
  if (config.contains(key) && config[key].is_null()) return 0.0;
  return Positive(config, key, fallback);
}

absl::Status ReadGemma(const json& config, Architecture& architecture) {
  architecture.unit_offset_norms = true;
  architecture.post_norms = true;
  architecture.embedding_scale = std::sqrt(static_cast<double>(architecture.hidden));
  VS_ASSIGN_OR_RETURN(const double scalar, Positive(config, "query_pre_attn_scalar", 256));
  architecture.attention_scale = 1 / std::sqrt(scalar);
  VS_ASSIGN_OR_RETURN(architecture.attention_soft_cap,
                      SoftCap(config, "attn_logit_softcapping", 50));
  VS_ASSIGN_OR_RETURN(architecture.final_soft_cap, SoftCap(config, "final_logit_softcapping", 30));
  VS_ASSIGN_OR_RETURN(const bool both_ways, Flag(config, "use_bidirectional_attention", false));
  if (both_ways) return Refused("use_bidirectional_attention", "is true, which is not served");
  return absl::OkStatus();
}

// The names under which torch has the types.
absl::Status ReadDtype(const json& config, Architecture& architecture) {
  const char* key = Has(config, "dtype") ? "dtype" : "torch_dtype";
  if (!Has(config, key)) return absl::OkStatus();
  for (const auto& [name, dtype] :
       std::initializer_list<std::pair<const char*, DType>>{{"float32", DType::kFloat32},
                                                            {"float", DType::kFloat32},
                                                            {"float16", DType::kFloat16},
                                                            {"half", DType::kFloat16},
                                                            {"bfloat16", DType::kBFloat16}}) {
    if (config[key] == name) {
      architecture.stored_dtype = dtype;
      return absl::OkStatus();
    }
  }
  return Refused(key,
                 "is not \"float32\", \"float16\" or \"bfloat16\"; where another type is "
                 "meant, or none, remove the key");
}

// What lies beyond the vocabulary is never generated, so it ends nothing.
absl::Status ReadEndTokens(const json& config, Architecture& architecture) {
  if (!Has(config, "eos_token_id")) return absl::OkStatus();
  const json& eos = config["eos_token_id"];
  const json list = eos.is_array() ? eos : json::array({eos});
  for (const json& id : list) {
    if (!id.is_number_integer() || id < 0) {
      return Refused("eos_token_id", "is not a token id or a list of them");
    }
    if (id < architecture.vocabulary) architecture.eos_token_ids.push_back(id.get<int64_t>());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Architecture> ParseArchitecture(absl::string_view config_json) {
  VS_ASSIGN_OR_RETURN(const json config, ParsePythonJson("config.json", config_json));
  if (!config.is_object()) return Refused("config.json", "is not an object");
  VS_ASSIGN_OR_RETURN(const Family* const family, FamilyOf(config));
  VS_RETURN_IF_ERROR(CheckArchitectures(config));
  if (Has(config, "quantization_config")) {
    return Refused("quantization_config", "is there, but quantised weights are not served");
  }
  if (Has(config, "transformers_weights") &&
      config["transformers_weights"] != "model.safetensors") {
    return Refused("transformers_weights",
                   "names another weight file, which is not served: save the weights as "
                   "model.safetensors and remove the key");
  }
  Architecture architecture;
  architecture.family = family->name;
  VS_ASSIGN_OR_RETURN(const int64_t layers, Size(config, "num_hidden_layers", kMaxLayers));
  architecture.num_layers = static_cast<int>(layers);
  VS_ASSIGN_OR_RETURN(architecture.hidden, Size(config, "hidden_size", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.intermediate, Size(config, "intermediate_size", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.num_heads, Size(config, "num_attention_heads", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.num_kv_heads,
                      Size(config, "num_key_value_heads", kMaxDimension,
                           config.contains("num_key_value_heads") || family->num_kv_heads == 0
                               ? architecture.num_heads
                               : family->num_kv_heads));
  VS_ASSIGN_OR_RETURN(architecture.vocabulary, Size(config, "vocab_size", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.max_positions, Size(config, "max_position_embeddings",
                                                       kMaxDimension, family->max_positions));
  if (architecture.num_heads % architecture.num_kv_heads != 0) {
    return Refused("num_key_value_heads", "does not divide num_attention_heads");
  }
  int64_t head_dim = family->head_dim;
  if (head_dim == 0 && !Has(config, "head_dim")) {
    if (architecture.hidden % architecture.num_heads != 0) {
      return Refused("num_attention_heads", "does not divide hidden_size, and head_dim is missing");
    }
    head_dim = architecture.hidden / architecture.num_heads;
  }
  VS_ASSIGN_OR_RETURN(architecture.head_dim, Size(config, "head_dim", kMaxHeadDim, head_dim));
  if (architecture.head_dim > kMaxHeadDim) {
    return Refused("head_dim", absl::StrCat("is ", architecture.head_dim,
                                            ", allowed range is 1 to ", kMaxHeadDim));
  }
  if (architecture.head_dim % 2 != 0) return Refused("head_dim", "is odd");
  const int64_t most_positions =
      kMaxRotationBytes / (architecture.head_dim * int64_t{sizeof(float)});
  if (architecture.max_positions > most_positions) {
    return Refused("max_position_embeddings",
                   absl::StrCat("is ", architecture.max_positions, ", allowed range with heads of ",
                                architecture.head_dim, " is 1 to ", most_positions));
  }
  VS_ASSIGN_OR_RETURN(architecture.rms_norm_epsilon, Positive(config, "rms_norm_eps", 1e-6));
  VS_ASSIGN_OR_RETURN(architecture.tied_embeddings,
                      Flag(config, "tie_word_embeddings", family->tied_embeddings));
  architecture.head_norms = family->head_norms;
  architecture.attention_scale = 1 / std::sqrt(static_cast<double>(architecture.head_dim));
  if (family->gemma) VS_RETURN_IF_ERROR(ReadGemma(config, architecture));
  VS_RETURN_IF_ERROR(ReadBiases(config, *family, architecture));
  VS_RETURN_IF_ERROR(ReadActivation(config, *family, architecture));
  VS_RETURN_IF_ERROR(ReadWindows(config, *family, architecture));
  VS_RETURN_IF_ERROR(ReadRope(config, architecture));
  VS_RETURN_IF_ERROR(ReadDtype(config, architecture));
  VS_RETURN_IF_ERROR(ReadEndTokens(config, architecture));
  return architecture;
}

}  // namespace valuescope::model
