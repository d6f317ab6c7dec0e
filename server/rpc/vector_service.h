// VectorService: extraction, decomposition and keeping of value vectors.
#ifndef VALUESCOPE_RPC_VECTOR_SERVICE_H_
#define VALUESCOPE_RPC_VECTOR_SERVICE_H_

#include <string>
#include <vector>

#include "engine/served_model.h"
#include "rpc/rpc_service.h"
#include "rpc/vector_resolver.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/decompose_vectors.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::rpc {

class VectorService : public RpcService {
 public:
  // All outlive the service.
  VectorService(CallRuntime* runtime, engine::ModelRegistry* models, store::Store* store,
                store::BlobStore* blobs, VectorResolver* resolver);

 private:
  absl::Status ExtractVectors(const CallContext& context, const v1::ExtractVectorsRequest& request,
                              v1::ExtractVectorsResponse* response);
  absl::Status DecomposeVectors(const CallContext& context,
                                const v1::DecomposeVectorsRequest& request,
                                v1::DecomposeVectorsResponse* response);
  absl::Status CreateVector(const CallContext& context, const v1::CreateVectorRequest& request,
                            v1::CreateVectorResponse* response);
  absl::Status GetVector(const CallContext& context, const v1::GetVectorRequest& request,
                         v1::GetVectorResponse* response);
  absl::Status ListVectors(const CallContext& context, const v1::ListVectorsRequest& request,
                           v1::ListVectorsResponse* response);
  absl::Status DeleteVector(const CallContext& context, const v1::DeleteVectorRequest& request,
                            v1::DeleteVectorResponse* response);

  engine::ModelRegistry* const models_;
  store::Store* const store_;
  store::BlobStore* const blobs_;
  VectorResolver* const resolver_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_VECTOR_SERVICE_H_
