#include "services/stored_neuron_sets.h"

#include <cstdint>
#include <utility>

#include "base/status_macros.h"

namespace valuescope::services {

absl::StatusOr<NamedNeuronSet> NeuronSetOfName(const rpc::CallContext& context,
                                               absl::string_view field, const std::string& name,
                                               store::Store& store, UsedResources& used) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "neuronSets", name));
  NamedNeuronSet named;
  VS_ASSIGN_OR_RETURN(named.resource,
                      store.GetResource(context.tenant, store::ResourceKind::kNeuronSet, id));
  VS_ASSIGN_OR_RETURN(named.set, studies::DescribeNeuronSet(named.resource));
  used[name] = named.resource.digest;
  return named;
}

absl::StatusOr<std::vector<studies::NeuronColumns>> HeldColumns(const rpc::CallContext& context,
                                                                const NamedNeuronSet& named,
                                                                store::BlobStore& blobs) {
  const int64_t file = named.resource.blob_size;
  VS_RETURN_IF_ERROR(context.Hold(2 * file));
  VS_ASSIGN_OR_RETURN(auto columns, studies::ReadColumns(blobs, named.resource));
  context.GiveBack(file);
  return columns;
}

absl::StatusOr<store::Resource> PutNeuronSet(const v1::NeuronSet& set, const std::string& columns,
                                             const std::string& tenant,
                                             const store::IdempotencyKey& key, store::Store& store,
                                             store::BlobStore& blobs) {
  VS_ASSIGN_OR_RETURN(const store::StoredBlob blob, store::WriteBlob(blobs, columns));
  VS_ASSIGN_OR_RETURN(store::Resource resource, studies::MakeNeuronSetResource(set, blob));
  VS_ASSIGN_OR_RETURN(const auto stored, store.PutResources(tenant, {std::move(resource)}, key));
  return stored.front();
}

}  // namespace valuescope::services
