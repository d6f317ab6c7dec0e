#include "studies/provenance.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/dtype.h"
#include "studies/contract_enums.h"
#include "studies/records_of_version_1.h"
#include "studies/stored_record.h"

namespace valuescope::studies {
namespace {

constexpr int kProvenanceVersion = 1;
constexpr char kLayerConvention[] = "block, 0-based";
constexpr char kToRounding[] = "to rounding";

// How far another run of the same requests repeats the numbers.
std::string DeterminismOf(const engine::ServedModel& model) {
  const bool cpu_float32 = model.device == "cpu" && model.dtype == DType::kFloat32;
  if (!cpu_float32 && !model.batch_invariant) return kToRounding;
  const std::string type = model.device.substr(0, model.device.find(':'));
  return absl::StrCat("bitwise on ", type, " ", NameOf(model.dtype));
}

// The texts that differ, in order of appearance, empty ones left out.
std::string Together(std::span<const v1::Provenance* const> sources,
                     const std::string& (v1::Provenance::*text_of)() const) {
  std::vector<absl::string_view> texts;
  for (const v1::Provenance* source : sources) {
    const std::string& text = (source->*text_of)();
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

v1::Provenance ProvenanceWithin(const engine::ServedModel& model) {
  v1::Provenance provenance;
  provenance.set_format_version(kProvenanceVersion);
  provenance.set_layer_convention(kLayerConvention);
  provenance.set_model(absl::StrCat("models/", model.id));
  provenance.set_model_digest(model.weights_digest);
  if (model.text != nullptr) provenance.set_tokenizer_digest(model.text->tokenizer_digest());
  return provenance;
}

v1::Provenance ProvenanceOf(const engine::ServedModel& model, bool rendered_chat) {
  v1::Provenance provenance = ProvenanceWithin(model);
  if (rendered_chat && model.text != nullptr) {
    provenance.set_template_digest(model.text->template_digest());
  }
  provenance.set_compute_dtype(DataTypeToProto(model.dtype));
  provenance.set_determinism(DeterminismOf(model));
  provenance.set_hardware_class(model.device_name.empty() ? HardwareClass() : model.device_name);
  return provenance;
}

v1::Provenance DerivedProvenance(std::span<const v1::Provenance* const> sources) {
  using v1::Provenance;
  const Provenance& first = *sources.front();
  Provenance derived;
  derived.set_format_version(kProvenanceVersion);
  derived.set_layer_convention(kLayerConvention);
  derived.set_model(first.model());
  derived.set_model_digest(first.model_digest());
  derived.set_tokenizer_digest(Together(sources, &Provenance::tokenizer_digest));
  derived.set_template_digest(Together(sources, &Provenance::template_digest));
  derived.set_judge(Together(sources, &Provenance::judge));
  derived.set_hardware_class(Together(sources, &Provenance::hardware_class));
  derived.set_site(first.site());
  derived.set_compute_dtype(first.compute_dtype());
  derived.set_determinism(first.determinism());
  for (const Provenance* source : sources) {
    if (source->pooling() != v1::POOLING_UNSPECIFIED) derived.set_pooling(source->pooling());
    derived.mutable_seeds()->MergeFrom(source->seeds());
    derived.set_num_expressing(derived.num_expressing() + source->num_expressing());
    derived.set_num_non_expressing(derived.num_non_expressing() + source->num_non_expressing());
    derived.set_num_dropped(derived.num_dropped() + source->num_dropped());
    if (source->compute_dtype() != first.compute_dtype()) derived.clear_compute_dtype();
    if (source->determinism() != first.determinism()) derived.set_determinism(kToRounding);
  }
  return derived;
}

absl::StatusOr<v1::Provenance> ProvenanceOfArtifact(const store::Resource& artifact) {
  return RecordOf<v1::Provenance>(artifact, ArtifactProvenanceOfVersion1);
}

}  // namespace valuescope::studies
