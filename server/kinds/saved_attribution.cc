#include "kinds/saved_attribution.h"

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/gradient_request.h"
#include "kinds/attribution_target.h"
#include "services/request_codec.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {
namespace {

// What the integral's nodes are where the request does not say.
engine::PathNodes PathOf(const v1::IntegratedGradients& how) {
  engine::PathNodes path;
  path.steps = how.steps();
  if (how.has_tolerance()) path.tolerance = how.tolerance();
  if (how.has_max_steps()) path.most = how.max_steps();
  return path;
}

// The tokens of a method by gradients.
const v1::TokenSelection& TokensOf(const SavedAttribution& record) {
  return record.has_attribution_patching() ? record.attribution_patching().tokens()
                                           : record.integrated_gradients().tokens();
}

// Whether L is made of the prompt's tokens alone.
bool IsReadInPrompt(const engine::GradientTarget& target) {
  const engine::TokenSelection* tokens = nullptr;
  if (const auto* projection = std::get_if<engine::ProjectionTarget>(&target)) {
    tokens = &projection->tokens;
  } else if (const auto* difference = std::get_if<engine::LogitDifferenceTarget>(&target)) {
    tokens = &difference->tokens;
  }
  return tokens != nullptr && (tokens->kind == engine::TokenKind::kPrompt ||
                               tokens->kind == engine::TokenKind::kLastPrompt);
}

}  // namespace

std::optional<int> SourceLayerOf(const SavedAttribution& record) {
  return record.has_source_layer() ? std::optional<int>(record.source_layer()) : std::nullopt;
}

absl::StatusOr<studies::GradientPlan> GradientPlanOf(const SavedAttribution& record,
                                                     const studies::StoredVector* vector,
                                                     int64_t context) {
  studies::GradientPlan plan;
  plan.layers.assign(record.layers().begin(), record.layers().end());
  VS_ASSIGN_OR_RETURN(plan.target, EngineTarget(record.target(), vector, context));
  const engine::TokenKind otherwise =
      IsReadInPrompt(plan.target) ? engine::TokenKind::kPrompt : engine::TokenKind::kResponse;
  VS_ASSIGN_OR_RETURN(plan.tokens,
                      services::TokensFromProto("tokens", TokensOf(record), context, otherwise));
  const auto& ids = record.target().continuation_logprob().continuation().token_ids().ids();
  plan.continuation.assign(ids.begin(), ids.end());
  plan.mean_baseline = record.attribution_patching().baseline() == v1::PATCHING_BASELINE_MEAN;
  if (record.has_integrated_gradients()) plan.path = PathOf(record.integrated_gradients());
  return plan;
}

bool IsByGradients(const SavedAttribution& record) {
  return record.has_attribution_patching() || record.has_integrated_gradients();
}

absl::Status NamedAsAsked(const SavedAttribution& record, const absl::Status& status) {
  const std::string method =
      record.has_attribution_patching() ? "attribution_patching" : "integrated_gradients";
  return WithFieldRenamed(TargetNamedAsAsked(record.target(), status), "tokens",
                          method + ".tokens");
}

absl::StatusOr<std::unique_ptr<studies::AttributionMethod>> MethodOf(
    const SavedAttribution& record, std::optional<studies::StoredVector> vector,
    const engine::ServedModel& model) {
  if (IsByGradients(record)) {
    VS_ASSIGN_OR_RETURN(
        studies::GradientPlan plan,
        GradientPlanOf(record, vector ? &*vector : nullptr, model.architecture.max_positions));
    return studies::GradientAttributionOf(std::move(plan));
  }
  std::vector<int> layers(record.layers().begin(), record.layers().end());
  if (record.has_activation_probability_difference()) {
    return studies::ActivationProbabilityOf(
        std::move(layers), record.activation_probability_difference().definition());
  }
  return studies::DirectContributionOf(std::move(layers), *std::move(vector),
                                       SourceLayerOf(record));
}

}  // namespace valuescope::kinds
