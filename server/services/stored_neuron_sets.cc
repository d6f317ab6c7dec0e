#include "services/stored_neuron_sets.h"

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::services {
namespace {

// An index, and what a neuron takes while members are looked for.
constexpr int64_t kMemberMemory = 8, kSearchMemory = 24;

studies::NeuronsByLayer Chosen(const std::vector<studies::NeuronColumns>& columns,
                               const v1::NeuronSetFilter& filter, const v1::NeuronSet& set) {
  if (filter.top_per_layer() > 0) {
    return studies::TopOfEachLayer(columns, filter.top_per_layer(), filter.class_());
  }
  return studies::MembersByLayer(columns, set.top_k(), filter.class_());
}

}  // namespace

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

absl::Status CheckFilter(const std::string& field, const v1::NeuronSetFilter& filter,
                         const v1::NeuronSet& set) {
  if (!v1::NeuronClass_IsValid(filter.class_())) {
    return InvalidField(absl::StrCat(field, ".class"), "must be a value of NeuronClass");
  }
  if (filter.class_() != v1::NEURON_CLASS_UNSPECIFIED && !studies::AssignsClasses(set)) {
    return InvalidField(absl::StrCat(field, ".class"),
                        absl::StrCat("must be unset: sets of ", set.method(), " have no classes"));
  }
  if (filter.top_per_layer() >= 0) return absl::OkStatus();
  return InvalidField(absl::StrCat(field, ".top_per_layer"), "must not be negative",
                      "OUT_OF_RANGE");
}

absl::StatusOr<studies::NeuronsByLayer> HeldNeurons(const rpc::CallContext& context,
                                                    const v1::NeuronSetFilter& filter,
                                                    const NamedNeuronSet& named,
                                                    store::BlobStore& blobs) {
  const int64_t search = kSearchMemory * studies::CountNeurons(named.set);
  VS_RETURN_IF_ERROR(context.Hold(search));
  VS_ASSIGN_OR_RETURN(const auto columns, HeldColumns(context, named, blobs));
  studies::NeuronsByLayer chosen = Chosen(columns, filter, named.set);
  int64_t kept = 0;
  for (auto& [layer, indices] : chosen) {
    indices.shrink_to_fit();
    kept += kMemberMemory * static_cast<int64_t>(indices.size());
  }
  context.GiveBack(named.resource.blob_size + search - kept);
  return chosen;
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
