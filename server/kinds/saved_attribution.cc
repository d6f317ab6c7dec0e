#include "kinds/saved_attribution.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/attribution_target.h"
#include "services/request_codec.h"
#include "studies/stored_neuron_set.h"
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

// The name of a method that has a target, and the tokens that it asks about.
struct Asked {
  const char* method;
  const v1::TokenSelection& tokens;
};

Asked AskedOf(const SavedAttribution& record) {
  switch (record.method_case()) {
    case SavedAttribution::kAttributionPatching:
      return {studies::kAttributionPatchingMethod, record.attribution_patching().tokens()};
    case SavedAttribution::kIntegratedGradients:
      return {studies::kIntegratedGradientsMethod, record.integrated_gradients().tokens()};
    case SavedAttribution::kCausalAblation:
      return {studies::kCausalAblationMethod, record.causal_ablation().tokens()};
    default:  // asks where the target is read
      return {studies::kLogProbabilityIncreaseMethod, v1::TokenSelection::default_instance()};
  }
}

// Of each of the record's layers, its candidates, which are of these layers.
engine::ChosenNeurons CandidatesOf(const SavedAttribution& record) {
  const v1::CausalAblation& how = record.causal_ablation();
  engine::ChosenNeurons neurons;
  if (how.candidates().empty()) return neurons;
  std::map<int, std::vector<int64_t>> by_layer;
  for (const v1::NeuronId& candidate : how.candidates()) {
    by_layer[candidate.layer()].push_back(candidate.index());
  }
  for (const int layer : record.layers()) {
    std::vector<int64_t>& indices = by_layer[layer];
    std::sort(indices.begin(), indices.end());
    neurons.emplace_back(std::move(indices));
  }
  return neurons;
}

engine::AblationQuestion AblationOf(const SavedAttribution& record,
                                    const std::optional<studies::StoredVector>& reference) {
  engine::AblationQuestion question{.neurons = CandidatesOf(record)};
  question.holds_norm_factor = record.causal_ablation().hold_norm_factor();
  if (!reference) return question;
  std::vector<float> base;
  for (const int layer : record.layers()) {
    const auto row = reference->row(*reference->RowOfLayer(layer));
    base.insert(base.end(), row.begin(), row.end());
  }
  question.base = std::make_shared<const std::vector<float>>(std::move(base));
  return question;
}

engine::NeuronQuestion QuestionOf(const SavedAttribution& record,
                                  const std::optional<studies::StoredVector>& reference) {
  if (record.has_causal_ablation()) return AblationOf(record, reference);
  if (record.has_log_probability_increase()) {
    return engine::LogprobQuestion{.recomputes_norm_factor =
                                       record.log_probability_increase().recompute_norm_scale()};
  }
  engine::GradientQuestion gradients;
  if (record.has_integrated_gradients()) gradients.path = PathOf(record.integrated_gradients());
  return gradients;
}

// Whether L is made of the prompt's tokens alone.
bool IsReadInPrompt(const engine::NeuronTarget& target) {
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

absl::StatusOr<studies::TargetPlan> TargetPlanOf(const SavedAttribution& record,
                                                 const AttributionVectors& vectors,
                                                 const model::Architecture& architecture) {
  const int64_t context = architecture.max_positions;
  studies::TargetPlan plan;
  plan.layers.assign(record.layers().begin(), record.layers().end());
  const studies::StoredVector* vector = vectors.vector ? &*vectors.vector : nullptr;
  VS_ASSIGN_OR_RETURN(plan.target, EngineTarget(record.target(), vector, context));
  const engine::TokenKind otherwise =
      IsReadInPrompt(plan.target) ? engine::TokenKind::kPrompt : engine::TokenKind::kResponse;
  VS_ASSIGN_OR_RETURN(
      plan.tokens, services::TokensFromProto("tokens", AskedOf(record).tokens, context, otherwise));
  const auto& ids = record.target().continuation_logprob().continuation().token_ids().ids();
  plan.continuation.assign(ids.begin(), ids.end());
  plan.question = QuestionOf(record, vectors.reference);
  plan.mean_baseline = record.attribution_patching().baseline() == v1::PATCHING_BASELINE_MEAN;
  return plan;
}

bool HasTarget(const SavedAttribution& record) {
  return record.has_attribution_patching() || record.has_integrated_gradients() ||
         record.has_causal_ablation() || record.has_log_probability_increase();
}

absl::Status NamedAsAsked(const SavedAttribution& record, const absl::Status& status) {
  return WithFieldRenamed(TargetNamedAsAsked(record.target(), status), "tokens",
                          absl::StrCat(AskedOf(record).method, ".tokens"));
}

absl::StatusOr<std::unique_ptr<studies::AttributionMethod>> MethodOf(
    const SavedAttribution& record, AttributionVectors vectors, const engine::ServedModel& model) {
  if (HasTarget(record)) {
    VS_ASSIGN_OR_RETURN(studies::TargetPlan plan,
                        TargetPlanOf(record, vectors, model.architecture));
    return studies::TargetAttributionOf(std::move(plan));
  }
  std::vector<int> layers(record.layers().begin(), record.layers().end());
  if (record.has_activation_probability_difference()) {
    return studies::ActivationProbabilityOf(
        std::move(layers), record.activation_probability_difference().definition());
  }
  return studies::DirectContributionOf(std::move(layers), *std::move(vectors.vector),
                                       SourceLayerOf(record));
}

}  // namespace valuescope::kinds
