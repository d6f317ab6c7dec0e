#include "kinds/resolved_attribution.h"

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/attribution_options.h"
#include "kinds/attribution_target.h"
#include "services/study_codec.h"
#include "studies/attribute_neurons.h"

namespace valuescope::kinds {
namespace {

using Request = v1::AttributeNeuronsRequest;

// Of the first `num_layers` blocks those that are asked for; all where none are.
absl::StatusOr<std::vector<int>> LayersAmong(int num_layers, const Request& request) {
  return services::LayersFromProto(
      "layers", request.has_layers() ? &request.layers() : nullptr,
      {.site = model::Site::kMlpNeurons, .num_layers = num_layers, .all_by_default = true});
}

absl::StatusOr<std::vector<int>> LayersAlong(const studies::StoredVector& vector,
                                             const Request& request,
                                             const engine::ServedModel& model) {
  const bool chosen = request.has_layers() &&
                      request.layers().layers_case() != v1::Layers::LAYERS_NOT_SET &&
                      !request.layers().all();
  if (!chosen && !request.has_source_layer()) {
    return std::vector<int>(vector.record.layers().begin(), vector.record.layers().end());
  }
  // All blocks of a source layer are those that can have written its row.
  const int num_layers = !chosen && vector.RowOfLayer(request.source_layer())
                             ? request.source_layer() + 1
                             : model.architecture.num_layers;
  return LayersAmong(num_layers, request);
}

class Resolver {
 public:
  // All outlive it.
  Resolver(const Request& request, const engine::ServedModel& model,
           const rpc::CallContext& context, const Sources& sources, services::UsedResources& used)
      : request_(request), model_(model), context_(context), sources_(sources), used_(used) {}

  absl::StatusOr<ResolvedAttribution> Resolve() {
    SavedAttribution& record = result_.record;
    VS_ASSIGN_OR_RETURN(const int top_k, services::TopKOf(request_));
    record.set_top_k(top_k);
    std::vector<int> layers;
    if (request_.has_direct_contribution()) {
      VS_ASSIGN_OR_RETURN(layers, UseDirectContribution());
    } else {
      VS_ASSIGN_OR_RETURN(const int num_layers, UseOther());
      VS_ASSIGN_OR_RETURN(layers, LayersAmong(num_layers, request_));
    }
    if (request_.has_causal_ablation()) VS_RETURN_IF_ERROR(UseAblation(layers));
    record.mutable_layers()->Assign(layers.begin(), layers.end());
    return std::move(result_);
  }

 private:
  // The layers that it scores.
  absl::StatusOr<std::vector<int>> UseDirectContribution() {
    SavedAttribution& record = result_.record;
    VS_RETURN_IF_ERROR(UseVector("vector", request_.vector()));
    if (request_.has_source_layer()) record.set_source_layer(request_.source_layer());
    const studies::StoredVector& vector = *result_.vectors.vector;
    VS_ASSIGN_OR_RETURN(std::vector<int> layers, LayersAlong(vector, request_, model_));
    VS_RETURN_IF_ERROR(studies::CheckRows(vector, layers, SourceLayerOf(record)));
    return layers;
  }

  // A method without a vector of its own. The first so many blocks can be scored.
  absl::StatusOr<int> UseOther() {
    SavedAttribution& record = result_.record;
    switch (request_.method_case()) {
      case Request::kActivationProbabilityDifference:
        *record.mutable_activation_probability_difference() =
            request_.activation_probability_difference();
        return model_.architecture.num_layers;
      case Request::kAttributionPatching:
        *record.mutable_attribution_patching() = request_.attribution_patching();
        break;
      case Request::kIntegratedGradients:
        *record.mutable_integrated_gradients() = request_.integrated_gradients();
        break;
      case Request::kLogProbabilityIncrease:
        *record.mutable_log_probability_increase() = request_.log_probability_increase();
        break;
      default:
        *record.mutable_causal_ablation() = request_.causal_ablation();
    }
    return UseTarget();
  }

  // Blocks behind the one behind which a projection is read have no part in it.
  absl::StatusOr<int> UseTarget() {
    VS_ASSIGN_OR_RETURN(ResolvedTarget target,
                        ResolveTarget(request_.target(), model_, context_, sources_, used_));
    SavedAttribution& record = result_.record;
    record.set_vector(target.vector_id);
    if (target.vector) {
      record.set_vector_digest(used_.at(request_.target().vector_projection().vector()));
    }
    result_.vectors.vector = std::move(target.vector);
    *record.mutable_target() = std::move(target.record);
    return record.target().has_vector_projection() ? record.target().vector_projection().layer() + 1
                                                   : model_.architecture.num_layers;
  }

  absl::Status UseAblation(std::span<const int> layers) {
    const v1::CausalAblation& how = request_.causal_ablation();
    VS_RETURN_IF_ERROR(CheckCandidates(how, layers, model_.architecture.intermediate));
    if (how.mode() != v1::ABLATION_MODE_MEAN) return absl::OkStatus();
    constexpr char kField[] = "causal_ablation.reference";
    VS_ASSIGN_OR_RETURN(result_.vectors.reference,
                        VectorOf(kField, how.reference(), model::Site::kMlpNeurons));
    for (const int layer : layers) {
      if (result_.vectors.reference->RowOfLayer(layer)) continue;
      return InvalidField(kField, absl::StrCat("has no row for layer ", layer));
    }
    SavedAttribution& record = result_.record;
    VS_ASSIGN_OR_RETURN(*record.mutable_causal_ablation()->mutable_reference(),
                        services::IdOfName(kField, "vectors", how.reference()));
    record.set_reference_digest(used_.at(how.reference()));
    return absl::OkStatus();
  }

  absl::Status UseVector(absl::string_view field, const std::string& name) {
    VS_ASSIGN_OR_RETURN(result_.vectors.vector, VectorOf(field, name, model::Site::kResidualPost));
    VS_ASSIGN_OR_RETURN(*result_.record.mutable_vector(),
                        services::IdOfName(field, "vectors", name));
    result_.record.set_vector_digest(used_.at(name));
    return absl::OkStatus();
  }

  absl::StatusOr<studies::StoredVector> VectorOf(absl::string_view field, const std::string& name,
                                                 model::Site site) const {
    return UsableVectorOfName(context_, field, name, site, model_, sources_, used_);
  }

  const Request& request_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const Sources& sources_;
  services::UsedResources& used_;
  ResolvedAttribution result_;
};

}  // namespace

absl::StatusOr<ResolvedAttribution> ResolveAttribution(const Request& request,
                                                       const engine::ServedModel& model,
                                                       const rpc::CallContext& context,
                                                       const Sources& sources,
                                                       services::UsedResources& used) {
  return Resolver(request, model, context, sources, used).Resolve();
}

}  // namespace valuescope::kinds
