// NeuronService: value neurons by what they write and by how active they are, the sets that come of
// it, what they cause, and the texts that neurons are active in.
#ifndef VALUESCOPE_SERVICES_NEURON_SERVICE_H_
#define VALUESCOPE_SERVICES_NEURON_SERVICE_H_

#include "engine/model_registry.h"
#include "rpc/call_context.h"
#include "services/calls_at_once.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::services {

class NeuronService {
 public:
  // All outlive the service.
  NeuronService(engine::ModelRegistry* models, store::Store* store, store::BlobStore* blobs,
                const KindRegistry* kinds)
      : models_(models), store_(store), blobs_(blobs), calls_(kinds, store, blobs) {}

  absl::Status AttributeNeurons(const rpc::CallContext& context,
                                const v1::AttributeNeuronsRequest& request,
                                v1::AttributeNeuronsResponse* response);
  absl::Status ClassifyNeurons(const rpc::CallContext& context,
                               const v1::ClassifyNeuronsRequest& request,
                               v1::ClassifyNeuronsResponse* response);
  absl::Status ScoreSelectivity(const rpc::CallContext& context,
                                const v1::ScoreSelectivityRequest& request,
                                v1::ScoreSelectivityResponse* response);
  absl::Status CompareNeuronSets(const rpc::CallContext& context,
                                 const v1::CompareNeuronSetsRequest& request,
                                 v1::CompareNeuronSetsResponse* response);
  absl::Status TestNeurons(const rpc::CallContext& context, const v1::TestNeuronsRequest& request,
                           v1::TestNeuronsResponse* response);
  absl::Status GetNeuronSet(const rpc::CallContext& context, const v1::GetNeuronSetRequest& request,
                            v1::GetNeuronSetResponse* response);
  absl::Status ListNeuronSets(const rpc::CallContext& context,
                              const v1::ListNeuronSetsRequest& request,
                              v1::ListNeuronSetsResponse* response);
  absl::Status DeleteNeuronSet(const rpc::CallContext& context,
                               const v1::DeleteNeuronSetRequest& request,
                               v1::DeleteNeuronSetResponse* response);
  absl::Status TopContexts(const rpc::CallContext& context, const v1::TopContextsRequest& request,
                           v1::TopContextsResponse* response);

 private:
  engine::ModelRegistry* const models_;
  store::Store* const store_;
  store::BlobStore* const blobs_;
  const CallsAtOnce calls_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_NEURON_SERVICE_H_
