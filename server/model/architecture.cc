#include "model/architecture.h"

#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/strict_json.h"

namespace valuescope::model {
namespace {

using nlohmann::json;

constexpr int64_t kMaxDimension = int64_t{1} << 24;
constexpr int64_t kMaxLayers = 1024;

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
  const int64_t value = config[key].get<int64_t>();
  if (value < 1 || value > limit) {
    return Refused(key, absl::StrCat("is ", value, ", allowed range is 1 to ", limit));
  }
  return value;
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

// Older folders say rope_theta and rope_scaling, newer ones rope_parameters.
absl::Status ReadRope(const json& config, Architecture& architecture) {
  json source = config;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!Has(config, key)) continue;
    const json& rope = config[key];
    if (!rope.is_object()) return Refused(key, "is not an object");
    for (const char* type_key : {"rope_type", "type"}) {
      if (Has(rope, type_key) && rope[type_key] != "default") {
        return Refused(key,
                       "asks for a kind of rope scaling that is not served; served is \"default\"");
      }
    }
    if (Has(rope, "factor")) return Refused(key, "has a factor, which is not served");
    if (Has(rope, "rope_theta")) source = rope;
  }
  VS_ASSIGN_OR_RETURN(architecture.rope_theta, Positive(source, "rope_theta", 10000.0));
  return absl::OkStatus();
}

absl::Status ReadDtype(const json& config, Architecture& architecture) {
  const char* key = Has(config, "dtype") ? "dtype" : "torch_dtype";
  if (!Has(config, key)) return absl::OkStatus();
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    if (config[key] == std::string(NameOf(dtype))) {
      architecture.stored_dtype = dtype;
      return absl::OkStatus();
    }
  }
  return Refused(key, "is not float32, float16 or bfloat16");
}

absl::Status ReadEndTokens(const json& config, Architecture& architecture) {
  if (!Has(config, "eos_token_id")) return absl::OkStatus();
  const json& eos = config["eos_token_id"];
  const json list = eos.is_array() ? eos : json::array({eos});
  for (const json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= architecture.vocabulary) {
      return Refused("eos_token_id", "names a token outside the vocabulary");
    }
    architecture.eos_token_ids.push_back(id.get<int64_t>());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Architecture> ParseArchitecture(absl::string_view config_json) {
  VS_ASSIGN_OR_RETURN(const json config, ParseStrictJson("config.json", config_json));
  if (!config.is_object()) return Refused("config.json", "is not an object");
  if (!Has(config, "model_type") || !config["model_type"].is_string()) {
    return Refused("model_type", "is missing");
  }
  Architecture architecture;
  architecture.family = config["model_type"].get<std::string>();
  if (architecture.family != "llama") {
    return Refused("model_type", absl::StrCat("is \"", architecture.family.substr(0, 64),
                                              "\"; served families: llama"));
  }
  VS_ASSIGN_OR_RETURN(const int64_t layers, Size(config, "num_hidden_layers", kMaxLayers));
  architecture.num_layers = static_cast<int>(layers);
  VS_ASSIGN_OR_RETURN(architecture.hidden, Size(config, "hidden_size", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.intermediate, Size(config, "intermediate_size", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.num_heads, Size(config, "num_attention_heads", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.num_kv_heads,
                      Size(config, "num_key_value_heads", kMaxDimension, architecture.num_heads));
  VS_ASSIGN_OR_RETURN(architecture.vocabulary, Size(config, "vocab_size", kMaxDimension));
  VS_ASSIGN_OR_RETURN(architecture.max_positions,
                      Size(config, "max_position_embeddings", kMaxDimension, 2048));
  if (architecture.num_heads % architecture.num_kv_heads != 0) {
    return Refused("num_key_value_heads", "does not divide num_attention_heads");
  }
  if (!Has(config, "head_dim") && architecture.hidden % architecture.num_heads != 0) {
    return Refused("num_attention_heads", "does not divide hidden_size, and head_dim is missing");
  }
  VS_ASSIGN_OR_RETURN(architecture.head_dim,
                      Size(config, "head_dim", 4096, architecture.hidden / architecture.num_heads));
  if (architecture.head_dim % 2 != 0) return Refused("head_dim", "is odd");
  VS_ASSIGN_OR_RETURN(architecture.rms_norm_epsilon, Positive(config, "rms_norm_eps", 1e-6));
  VS_ASSIGN_OR_RETURN(architecture.tied_embeddings, Flag(config, "tie_word_embeddings", false));
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    VS_ASSIGN_OR_RETURN(const bool bias, Flag(config, key, false));
    if (bias) return Refused(key, "is true, which is not served for this family");
  }
  if (Has(config, "hidden_act") && config["hidden_act"] != "silu") {
    return Refused("hidden_act", "is not \"silu\", the activation of this family");
  }
  VS_RETURN_IF_ERROR(ReadRope(config, architecture));
  VS_RETURN_IF_ERROR(ReadDtype(config, architecture));
  VS_RETURN_IF_ERROR(ReadEndTokens(config, architecture));
  return architecture;
}

}  // namespace valuescope::model
