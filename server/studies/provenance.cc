#include "studies/provenance.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "studies/json_fields.h"

namespace valuescope::studies {
namespace {

using nlohmann::json;

constexpr std::array kSites = {model::Site::kEmbedding,      model::Site::kResidualPre,
                               model::Site::kResidualMid,    model::Site::kResidualPost,
                               model::Site::kAttentionHeads, model::Site::kAttentionOutput,
                               model::Site::kMlpNeurons,     model::Site::kMlpOutput,
                               model::Site::kFinalNorm,      model::Site::kLogits};
constexpr std::array kTypes = {DType::kFloat32, DType::kFloat16, DType::kBFloat16,
                               DType::kFloat64, DType::kInt32,   DType::kInt64};

template <typename Values>
absl::StatusOr<typename Values::value_type> ByName(const Values& values, absl::string_view name) {
  for (const auto value : values) {
    if (NameOf(value) == name) return value;
  }
  return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                         absl::StrCat("`", name, "` is not a name that stored metadata may hold"));
}

constexpr char kToRounding[] = "to rounding";

// How far another run of the same requests repeats the numbers.
std::string DeterminismOf(const engine::ServedModel& model) {
  const bool cpu_float32 = model.device == "cpu" && model.dtype == DType::kFloat32;
  if (!cpu_float32 && !model.batch_invariant) return kToRounding;
  const std::string type = model.device.substr(0, model.device.find(':'));
  return absl::StrCat("bitwise on ", type, " ", NameOf(model.dtype));
}

// The texts that differ, in order of appearance, empty ones left out.
std::string Together(std::span<const Provenance* const> sources, std::string Provenance::*member) {
  std::vector<absl::string_view> texts;
  for (const Provenance* source : sources) {
    const std::string& text = source->*member;
    if (text.empty() || std::find(texts.begin(), texts.end(), text) != texts.end()) continue;
    texts.push_back(text);
  }
  return absl::StrJoin(texts, "; ");
}

// Kernels are chosen by what the processor offers, and with them the last bits of a sum.
std::string HardwareClass() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return "x86_64 avx512";
  if (__builtin_cpu_supports("avx2")) return "x86_64 avx2";
  return "x86_64";
#elif defined(__aarch64__)
  return "aarch64";
#else
  return "unknown";
#endif
}

}  // namespace

Provenance ProvenanceWithin(const engine::ServedModel& model) {
  Provenance provenance;
  provenance.model = absl::StrCat("models/", model.id);
  provenance.model_digest = model.weights_digest;
  if (model.text != nullptr) provenance.tokenizer_digest = model.text->tokenizer_digest();
  return provenance;
}

Provenance ProvenanceOf(const engine::ServedModel& model, bool rendered_chat) {
  Provenance provenance = ProvenanceWithin(model);
  if (rendered_chat && model.text != nullptr) {
    provenance.template_digest = model.text->template_digest();
  }
  provenance.compute_dtype = model.dtype;
  provenance.determinism = DeterminismOf(model);
  provenance.hardware_class = model.device_name.empty() ? HardwareClass() : model.device_name;
  return provenance;
}

Provenance DerivedProvenance(std::span<const Provenance* const> sources) {
  Provenance derived;
  for (const auto member :
       {&Provenance::tokenizer_digest, &Provenance::template_digest, &Provenance::pooling,
        &Provenance::judge, &Provenance::hardware_class}) {
    derived.*member = Together(sources, member);
  }
  derived.model = sources.front()->model;
  derived.model_digest = sources.front()->model_digest;
  derived.site = sources.front()->site;
  derived.compute_dtype = sources.front()->compute_dtype;
  derived.determinism = sources.front()->determinism;
  for (const Provenance* source : sources) {
    derived.seeds.insert(derived.seeds.end(), source->seeds.begin(), source->seeds.end());
    derived.num_expressing += source->num_expressing;
    derived.num_non_expressing += source->num_non_expressing;
    derived.num_dropped += source->num_dropped;
    if (source->compute_dtype != derived.compute_dtype) derived.compute_dtype.reset();
    if (source->determinism != derived.determinism) derived.determinism = kToRounding;
  }
  return derived;
}

absl::StatusOr<model::Site> ParseSite(absl::string_view name) { return ByName(kSites, name); }

absl::StatusOr<DType> ParseDType(absl::string_view name) { return ByName(kTypes, name); }

std::string ProvenanceToJson(const Provenance& provenance) {
  json inputs = json::array();
  for (const InputDigest& input : provenance.inputs) {
    inputs.push_back({{"name", input.name}, {"digest", input.digest}});
  }
  const json record = {
      {"format_version", kProvenanceVersion},
      {"model", provenance.model},
      {"model_digest", provenance.model_digest},
      {"tokenizer_digest", provenance.tokenizer_digest},
      {"template_digest", provenance.template_digest},
      {"site", std::string(NameOf(provenance.site))},
      {"layer_convention", kLayerConvention},
      {"pooling", provenance.pooling},
      {"sign_rule", provenance.sign_rule},
      {"judge", provenance.judge},
      {"seeds", provenance.seeds},
      {"num_expressing", provenance.num_expressing},
      {"num_non_expressing", provenance.num_non_expressing},
      {"num_dropped", provenance.num_dropped},
      {"inputs", std::move(inputs)},
      {"options", provenance.options},
      {"compute_dtype",
       provenance.compute_dtype ? std::string(NameOf(*provenance.compute_dtype)) : ""},
      {"determinism", provenance.determinism},
      {"hardware_class", provenance.hardware_class},
  };
  return DumpJson(record);
}

absl::StatusOr<Provenance> ProvenanceFromJson(absl::string_view text) {
  Provenance provenance;
  std::string site, dtype;
  VS_RETURN_IF_ERROR(ReadJson(text, kProvenanceVersion, [&](const json& record) {
    provenance.model = record.at("model").get<std::string>();
    provenance.model_digest = record.at("model_digest").get<std::string>();
    provenance.tokenizer_digest = record.at("tokenizer_digest").get<std::string>();
    provenance.template_digest = record.at("template_digest").get<std::string>();
    site = record.at("site").get<std::string>();
    provenance.pooling = record.at("pooling").get<std::string>();
    provenance.sign_rule = record.at("sign_rule").get<std::string>();
    provenance.judge = record.at("judge").get<std::string>();
    provenance.seeds = record.at("seeds").get<std::vector<uint64_t>>();
    provenance.num_expressing = record.at("num_expressing").get<int64_t>();
    provenance.num_non_expressing = record.at("num_non_expressing").get<int64_t>();
    provenance.num_dropped = record.at("num_dropped").get<int64_t>();
    for (const json& input : record.at("inputs")) {
      provenance.inputs.push_back({.name = input.at("name").get<std::string>(),
                                   .digest = input.at("digest").get<std::string>()});
    }
    provenance.options = record.value("options", "");  // records of before have none
    dtype = record.at("compute_dtype").get<std::string>();
    provenance.determinism = record.at("determinism").get<std::string>();
    provenance.hardware_class = record.at("hardware_class").get<std::string>();
  }));
  VS_ASSIGN_OR_RETURN(provenance.site, ParseSite(site));
  if (!dtype.empty()) {
    VS_ASSIGN_OR_RETURN(provenance.compute_dtype, ParseDType(dtype));
  }
  return provenance;
}

absl::StatusOr<Provenance> ProvenanceOfMetadata(absl::string_view metadata) {
  const json record = json::parse(metadata.begin(), metadata.end(), nullptr, false);
  if (!record.is_object() || !record.contains("provenance") || !record["provenance"].is_string()) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                           "the metadata of a resource has no provenance");
  }
  return ProvenanceFromJson(record["provenance"].get<std::string>());
}

}  // namespace valuescope::studies
