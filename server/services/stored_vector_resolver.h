// Named vectors and neuron sets of interventions, read from the store. The members of neuron sets
// that were named last are kept, because every request that names one would read all of its file.
#ifndef VALUESCOPE_SERVICES_STORED_VECTOR_RESOLVER_H_
#define VALUESCOPE_SERVICES_STORED_VECTOR_RESOLVER_H_

#include <cstdint>

#include "services/member_cache.h"
#include "services/vector_resolver.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/stored_neuron_set.h"

namespace valuescope::services {

// Of neuron sets' indices: all neurons of a model with 64 blocks of 27,648 are 14 MB.
inline constexpr int64_t kCachedMemberBytes = int64_t{32} << 20;

class StoredVectorResolver : public VectorResolver {
 public:
  // Both outlive the resolver.
  StoredVectorResolver(store::Store* store, store::BlobStore* blobs)
      : store_(store), blobs_(blobs), members_(kCachedMemberBytes) {}

  absl::StatusOr<ResolvedVector> Resolve(absl::string_view tenant, absl::string_view name,
                                         const engine::ServedModel& model, model::Site site,
                                         absl::string_view field) override;
  absl::StatusOr<NeuronCounts> CountNeurons(absl::string_view tenant, absl::string_view name,
                                            v1::NeuronClass neuron_class,
                                            const engine::ServedModel& model,
                                            absl::string_view field) override;
  absl::StatusOr<ResolvedNeurons> ResolveNeurons(absl::string_view tenant, absl::string_view name,
                                                 v1::NeuronClass neuron_class,
                                                 const engine::ServedModel& model,
                                                 absl::string_view field) override;

 private:
  struct NamedSet {
    store::Resource resource;
    v1::NeuronSet set;
  };
  // The set's metadata. The errors of ResolveNeurons.
  absl::StatusOr<NamedSet> SetOfName(absl::string_view tenant, absl::string_view name,
                                     v1::NeuronClass neuron_class, const engine::ServedModel& model,
                                     absl::string_view field) const;

  store::Store* const store_;
  store::BlobStore* const blobs_;
  MemberCache members_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_STORED_VECTOR_RESOLVER_H_
