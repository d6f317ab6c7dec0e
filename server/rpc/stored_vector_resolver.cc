#include "rpc/stored_vector_resolver.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "rpc/request_codec.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"

namespace valuescope::rpc {

absl::StatusOr<ResolvedVector> StoredVectorResolver::Resolve(absl::string_view tenant,
                                                             absl::string_view name,
                                                             const engine::ServedModel& model,
                                                             model::Site site,
                                                             absl::string_view field) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "vectors", name));
  VS_ASSIGN_OR_RETURN(const store::Resource resource,
                      store_->GetResource(tenant, store::ResourceKind::kVector, id));
  VS_ASSIGN_OR_RETURN(const studies::StoredVector stored, studies::ReadVector(*blobs_, resource));
  VS_RETURN_IF_ERROR(studies::CheckUsable(stored, model, site, field));
  ResolvedVector resolved;
  resolved.name = store::ResourceName(store::ResourceKind::kVector, id);
  resolved.digest = resource.digest;
  resolved.site = stored.site;
  resolved.width = stored.width;
  for (int64_t row = 0; row < stored.num_rows(); ++row) {
    const auto values = stored.row(row);
    const int layer = stored.layers.empty() ? 0 : stored.layers[static_cast<size_t>(row)];
    resolved.rows[layer].assign(values.begin(), values.end());
  }
  return resolved;
}

absl::StatusOr<ResolvedNeurons> StoredVectorResolver::ResolveNeurons(
    absl::string_view tenant, absl::string_view name, v1::NeuronClass neuron_class,
    const engine::ServedModel& model, absl::string_view field) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "neuronSets", name));
  VS_ASSIGN_OR_RETURN(const store::Resource resource,
                      store_->GetResource(tenant, store::ResourceKind::kNeuronSet, id));
  VS_ASSIGN_OR_RETURN(const studies::StoredNeuronSet set, studies::DescribeNeuronSet(resource));
  if (set.model_digest != model.weights_digest) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                           absl::StrCat("`", field, "` was made on ", set.model,
                                        " with other weights than those of models/", model.id));
  }
  VS_ASSIGN_OR_RETURN(const auto columns, studies::ReadColumns(*blobs_, resource));
  ResolvedNeurons resolved{.name = store::ResourceName(store::ResourceKind::kNeuronSet, id),
                           .digest = resource.digest,
                           .by_layer = {}};
  for (const studies::NeuronScore& neuron : studies::Members(columns, set.top_k)) {
    if (neuron_class != v1::NEURON_CLASS_UNSPECIFIED) {
      if (!neuron.neuron_class) {
        return InvalidField(field, "assigns no classes, so `class` must be unset");
      }
      if (studies::ContractNumber(*neuron.neuron_class) != neuron_class) continue;
    }
    resolved.by_layer[neuron.layer].push_back(neuron.index);
  }
  for (auto& [layer, indices] : resolved.by_layer) std::sort(indices.begin(), indices.end());
  return resolved;
}

}  // namespace valuescope::rpc
