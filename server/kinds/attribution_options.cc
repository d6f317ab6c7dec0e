#include "kinds/attribution_options.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "services/response_sets.h"
#include "services/study_codec.h"

namespace valuescope::kinds {
namespace {

using Request = v1::AttributeNeuronsRequest;

constexpr int kMostSteps = 1024;
// A set's record names them.
constexpr int kMostCandidates = 4096;

std::string NameOfMethod(const Request& request) {
  return Request::descriptor()->FindFieldByNumber(request.method_case())->name();
}

absl::Status CheckIntegration(const v1::IntegratedGradients& how) {
  const auto field = [](absl::string_view name) {
    return absl::StrCat("integrated_gradients.", name);
  };
  if (how.has_steps()) {
    if (how.steps() < 1 || how.steps() > kMostSteps) {
      return OutOfRange(field("steps"), how.steps(), 1, kMostSteps);
    }
    if (!how.has_tolerance() && !how.has_max_steps()) return absl::OkStatus();
    return InvalidField(field("steps"), "excludes tolerance and max_steps");
  }
  if (how.has_tolerance() && !(how.tolerance() > 0 && how.tolerance() <= 1)) {
    return InvalidField(field("tolerance"), "must be above 0 and at most 1", "OUT_OF_RANGE");
  }
  if (how.has_max_steps() && (how.max_steps() < 12 || how.max_steps() > 4096)) {
    return OutOfRange(field("max_steps"), how.max_steps(), 12, 4096);
  }
  return absl::OkStatus();
}

absl::Status CheckAblation(const v1::CausalAblation& how) {
  if (!v1::AblationMode_IsValid(how.mode())) {
    return InvalidField("causal_ablation.mode", "must be ZERO or MEAN (ABLATION_MODE_...)");
  }
  const bool mean = how.mode() == v1::ABLATION_MODE_MEAN;
  if (mean == how.reference().empty()) {
    return InvalidField("causal_ablation.reference",
                        mean ? "is required with MEAN: vectors/ID of site MLP_NEURONS"
                             : "goes only with ABLATION_MODE_MEAN");
  }
  if (how.candidates_size() <= kMostCandidates) return absl::OkStatus();
  return OutOfRange("causal_ablation.candidates", how.candidates_size(), 0, kMostCandidates);
}

absl::Status CheckTargetOptions(const Request& request) {
  const v1::AttributionTarget& target = request.target();
  if (target.target_case() == v1::AttributionTarget::TARGET_NOT_SET) {
    return InvalidField("target", absl::StrCat("must be set for ", NameOfMethod(request)));
  }
  if (!v1::PatchingBaseline_IsValid(request.attribution_patching().baseline())) {
    return InvalidField("attribution_patching.baseline", "must be a value of PatchingBaseline");
  }
  if (request.has_log_probability_increase() && !target.has_continuation_logprob()) {
    return InvalidField("target", "must be continuation_logprob for log_probability_increase");
  }
  VS_RETURN_IF_ERROR(CheckAblation(request.causal_ablation()));
  return CheckIntegration(request.integrated_gradients());
}

absl::Status CheckMethod(const Request& request) {
  if (request.method_case() == Request::METHOD_NOT_SET) {
    return InvalidField("method", "must be set");
  }
  const std::string name = NameOfMethod(request);
  const bool has_target =
      !request.has_direct_contribution() && !request.has_activation_probability_difference();
  if (request.has_target() && !has_target) {
    return InvalidField("target", absl::StrCat("has no meaning for ", name));
  }
  if (request.has_direct_contribution()) return absl::OkStatus();
  if (!request.vector().empty()) {
    return InvalidField("vector", absl::StrCat("has no meaning for ", name));
  }
  if (request.has_source_layer()) {
    return InvalidField("source_layer", absl::StrCat("has no meaning for ", name));
  }
  if (has_target) return CheckTargetOptions(request);
  if (!v1::ActivationDefinition_IsValid(request.activation_probability_difference().definition())) {
    return InvalidField("activation_probability_difference.definition",
                        "must be a value of ActivationDefinition");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckAttributionOptions(const Request& request) {
  VS_RETURN_IF_ERROR(CheckMethod(request));
  VS_RETURN_IF_ERROR(services::TopKOf(request).status());
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", request.display_name()));
  return services::CheckJudge(request);
}

absl::Status CheckCandidates(const v1::CausalAblation& how, std::span<const int> layers,
                             int64_t intermediate) {
  std::set<std::pair<int, int>> seen;
  for (int i = 0; i < how.candidates_size(); ++i) {
    const v1::NeuronId& candidate = how.candidates(i);
    const std::string field = absl::StrCat("causal_ablation.candidates[", i, "]");
    if (!std::binary_search(layers.begin(), layers.end(), candidate.layer())) {
      return InvalidField(absl::StrCat(field, ".layer"),
                          absl::StrCat("is ", candidate.layer(), ", not one of the layers scored"),
                          "OUT_OF_RANGE");
    }
    if (candidate.index() < 0 || candidate.index() >= intermediate) {
      return OutOfRange(absl::StrCat(field, ".index"), candidate.index(), 0,
                        static_cast<double>(intermediate - 1));
    }
    if (!seen.emplace(candidate.layer(), candidate.index()).second) {
      return InvalidField(field, "is there twice");
    }
  }
  return absl::OkStatus();
}

}  // namespace valuescope::kinds
