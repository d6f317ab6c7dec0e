// NeuronService: value neurons by geometry and by direct contribution, and the sets that come of
// it.
#ifndef VALUESCOPE_RPC_NEURON_SERVICE_H_
#define VALUESCOPE_RPC_NEURON_SERVICE_H_

#include "engine/served_model.h"
#include "rpc/rpc_service.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::rpc {

class NeuronService : public RpcService {
 public:
  // All outlive the service.
  NeuronService(CallRuntime* runtime, engine::ModelRegistry* models, store::Store* store,
                store::BlobStore* blobs);

 private:
  absl::Status AttributeNeurons(const CallContext& context,
                                const v1::AttributeNeuronsRequest& request,
                                v1::AttributeNeuronsResponse* response);
  absl::Status ClassifyNeurons(const CallContext& context,
                               const v1::ClassifyNeuronsRequest& request,
                               v1::ClassifyNeuronsResponse* response);
  absl::Status GetNeuronSet(const CallContext& context, const v1::GetNeuronSetRequest& request,
                            v1::GetNeuronSetResponse* response);
  absl::Status ListNeuronSets(const CallContext& context, const v1::ListNeuronSetsRequest& request,
                              v1::ListNeuronSetsResponse* response);
  absl::Status DeleteNeuronSet(const CallContext& context,
                               const v1::DeleteNeuronSetRequest& request,
                               v1::DeleteNeuronSetResponse* response);

  engine::ModelRegistry* const models_;
  store::Store* const store_;
  store::BlobStore* const blobs_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_NEURON_SERVICE_H_
