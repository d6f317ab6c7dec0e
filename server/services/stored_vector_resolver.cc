#include "services/stored_vector_resolver.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/request_codec.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"

namespace valuescope::services {

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
  resolved.site = stored.site();
  resolved.width = stored.width();
  for (int64_t row = 0; row < stored.num_rows(); ++row) {
    const auto values = stored.row(row);
    const bool layered = stored.record.layers_size() > 0;
    const int layer = layered ? stored.record.layers(static_cast<int>(row)) : 0;
    resolved.rows[layer].assign(values.begin(), values.end());
  }
  return resolved;
}

absl::StatusOr<StoredVectorResolver::NamedSet> StoredVectorResolver::SetOfName(
    absl::string_view tenant, absl::string_view name, v1::NeuronClass neuron_class,
    const engine::ServedModel& model, absl::string_view field) const {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "neuronSets", name));
  NamedSet named;
  VS_ASSIGN_OR_RETURN(named.resource,
                      store_->GetResource(tenant, store::ResourceKind::kNeuronSet, id));
  VS_ASSIGN_OR_RETURN(named.set, studies::DescribeNeuronSet(named.resource));
  if (named.set.model_digest() != model.weights_digest) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
                           absl::StrCat("`", field, "` was made on ", named.set.model(),
                                        " with other weights than those of models/", model.id));
  }
  if (neuron_class != v1::NEURON_CLASS_UNSPECIFIED && !studies::AssignsClasses(named.set)) {
    return InvalidField(field, "assigns no classes, so `class` must be unset");
  }
  return named;
}

absl::StatusOr<NeuronCounts> StoredVectorResolver::CountNeurons(absl::string_view tenant,
                                                                absl::string_view name,
                                                                v1::NeuronClass neuron_class,
                                                                const engine::ServedModel& model,
                                                                absl::string_view field) {
  VS_ASSIGN_OR_RETURN(const NamedSet named, SetOfName(tenant, name, neuron_class, model, field));
  NeuronCounts counts;
  if (!members_.Contains({named.resource.digest, neuron_class})) {
    counts.bytes_to_read = named.resource.blob_size;
  }
  for (const v1::NeuronSetLayer& layer : named.set.layers()) {
    int64_t& count = counts.by_layer[layer.layer()];
    if (neuron_class == v1::NEURON_CLASS_UNSPECIFIED) count = layer.num_members();
    for (const v1::NeuronClassCount& each : layer.classes()) {
      if (each.class_() == neuron_class) count = each.count();
    }
  }
  return counts;
}

absl::StatusOr<ResolvedNeurons> StoredVectorResolver::ResolveNeurons(
    absl::string_view tenant, absl::string_view name, v1::NeuronClass neuron_class,
    const engine::ServedModel& model, absl::string_view field) {
  VS_ASSIGN_OR_RETURN(const NamedSet named, SetOfName(tenant, name, neuron_class, model, field));
  const std::string& digest = named.resource.digest;
  ResolvedNeurons resolved{
      .name = store::ResourceName(store::ResourceKind::kNeuronSet, named.resource.id),
      .digest = digest,
      .by_layer = {}};
  if (members_.Find({digest, neuron_class}, resolved.by_layer)) return resolved;
  VS_ASSIGN_OR_RETURN(const auto columns, studies::ReadColumns(*blobs_, named.resource));
  for (auto& [layer, indices] : studies::MembersByLayer(columns, named.set.top_k(), neuron_class)) {
    resolved.by_layer[layer] = std::move(indices);
  }
  members_.Keep({digest, neuron_class}, resolved.by_layer);
  return resolved;
}

}  // namespace valuescope::services
