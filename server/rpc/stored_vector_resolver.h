// Named vectors and neuron sets of interventions, read from the store.
#ifndef VALUESCOPE_RPC_STORED_VECTOR_RESOLVER_H_
#define VALUESCOPE_RPC_STORED_VECTOR_RESOLVER_H_

#include "rpc/vector_resolver.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::rpc {

class StoredVectorResolver : public VectorResolver {
 public:
  // Both outlive the resolver.
  StoredVectorResolver(store::Store* store, store::BlobStore* blobs)
      : store_(store), blobs_(blobs) {}

  absl::StatusOr<ResolvedVector> Resolve(absl::string_view tenant, absl::string_view name,
                                         const engine::ServedModel& model, model::Site site,
                                         absl::string_view field) override;
  absl::StatusOr<ResolvedNeurons> ResolveNeurons(absl::string_view tenant, absl::string_view name,
                                                 v1::NeuronClass neuron_class,
                                                 const engine::ServedModel& model,
                                                 absl::string_view field) override;

 private:
  store::Store* const store_;
  store::BlobStore* const blobs_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_STORED_VECTOR_RESOLVER_H_
