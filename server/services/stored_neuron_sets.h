// Stored neuron sets by name, for services that read their columns, and where new ones go.
#ifndef VALUESCOPE_SERVICES_STORED_NEURON_SETS_H_
#define VALUESCOPE_SERVICES_STORED_NEURON_SETS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/stored_neuron_set.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::services {

struct NamedNeuronSet {
  store::Resource resource;
  v1::NeuronSet set;  // without `top`
};

// The tenant's set, added to `used`. INVALID_ARGUMENT naming `field` for a malformed name,
// NOT_FOUND.
absl::StatusOr<NamedNeuronSet> NeuronSetOfName(const rpc::CallContext& context,
                                               absl::string_view field, const std::string& name,
                                               store::Store& store, UsedResources& used);

// Its columns, once the call holds memory for them, which is the size of their file, and for the
// file while it is read. Errors of CallContext::Hold; DATA_LOSS.
absl::StatusOr<std::vector<studies::NeuronColumns>> HeldColumns(const rpc::CallContext& context,
                                                                const NamedNeuronSet& named,
                                                                store::BlobStore& blobs);

// INVALID_ARGUMENT naming "`field`.class" or "`field`.top_per_layer" of a filter of that set.
absl::Status CheckFilter(const std::string& field, const v1::NeuronSetFilter& filter,
                         const v1::NeuronSet& set);

// The neurons that a filter chooses. At the end the call holds what they take alone. Errors of
// HeldColumns.
absl::StatusOr<studies::NeuronsByLayer> HeldNeurons(const rpc::CallContext& context,
                                                    const v1::NeuronSetFilter& filter,
                                                    const NamedNeuronSet& named,
                                                    store::BlobStore& blobs);

// Stores a set whose file is `columns`.
absl::StatusOr<store::Resource> PutNeuronSet(const v1::NeuronSet& set, const std::string& columns,
                                             const std::string& tenant,
                                             const store::IdempotencyKey& key, store::Store& store,
                                             store::BlobStore& blobs);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_STORED_NEURON_SETS_H_
