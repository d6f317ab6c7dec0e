#include "kinds/attribution_options.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "engine/gradient_request.h"
#include "services/response_sets.h"
#include "services/study_codec.h"

namespace valuescope::kinds {
namespace {

using Request = v1::AttributeNeuronsRequest;

constexpr char kServed[] =
    "direct_contribution, activation_probability_difference, attribution_patching and "
    "integrated_gradients";
constexpr int kMostSteps = 1024;

std::string NameOfMethod(const Request& request) {
  return Request::descriptor()->FindFieldByNumber(request.method_case())->name();
}

bool IsServed(Request::MethodCase method) {
  return method == Request::kDirectContribution ||
         method == Request::kActivationProbabilityDifference ||
         method == Request::kAttributionPatching || method == Request::kIntegratedGradients;
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

absl::Status CheckGradientOptions(const Request& request) {
  if (request.target().target_case() == v1::AttributionTarget::TARGET_NOT_SET) {
    return InvalidField("target", absl::StrCat("must be set for ", NameOfMethod(request)));
  }
  if (!v1::PatchingBaseline_IsValid(request.attribution_patching().baseline())) {
    return InvalidField("attribution_patching.baseline", "must be a value of PatchingBaseline");
  }
  return CheckIntegration(request.integrated_gradients());
}

absl::Status CheckMethod(const Request& request) {
  if (request.method_case() == Request::METHOD_NOT_SET) {
    return InvalidField("method", absl::StrCat("must be set; this version serves ", kServed));
  }
  const std::string name = NameOfMethod(request);
  if (!IsServed(request.method_case())) {
    return ErrorWithReason(
        absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
        absl::StrCat("`", name, "` is not served by this version, which serves ", kServed));
  }
  const bool by_gradients =
      request.has_attribution_patching() || request.has_integrated_gradients();
  if (request.has_target() && !by_gradients) {
    return InvalidField("target", absl::StrCat("has no meaning for ", name));
  }
  if (request.has_direct_contribution()) return absl::OkStatus();
  if (!request.vector().empty()) {
    return InvalidField("vector", absl::StrCat("has no meaning for ", name));
  }
  if (request.has_source_layer()) {
    return InvalidField("source_layer", absl::StrCat("has no meaning for ", name));
  }
  if (by_gradients) return CheckGradientOptions(request);
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

}  // namespace valuescope::kinds
