// Models beneath the model root, and their tokenizers.
#ifndef VALUESCOPE_RPC_MODEL_SERVICE_H_
#define VALUESCOPE_RPC_MODEL_SERVICE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "rpc/rpc_service.h"
#include "rpc/waiter.h"
#include "store/store.h"
#include "valuescope/v1/models.pb.h"

namespace valuescope::rpc {

class ModelService : public RpcService {
 public:
  // All outlive the service.
  ModelService(CallRuntime* runtime, engine::ModelRegistry* models, store::Store* store);

 private:
  absl::Status ListModels(const CallContext& context, const v1::ListModelsRequest& request,
                          v1::ListModelsResponse* response);
  absl::Status GetModel(const CallContext& context, const v1::GetModelRequest& request,
                        v1::GetModelResponse* response);
  absl::Status LoadModel(const CallContext& context, const v1::LoadModelRequest& request,
                         v1::LoadModelResponse* response);
  absl::StatusOr<std::unique_ptr<Waiter<v1::UnloadModelResponse*>>> UnloadModel(
      const CallContext& context, const v1::UnloadModelRequest& request, Wake wake);
  absl::Status CheckNoJobRunsOn(const std::string& id) const;
  absl::Status Tokenize(const CallContext& context, const v1::TokenizeRequest& request,
                        v1::TokenizeResponse* response);
  absl::Status Detokenize(const CallContext& context, const v1::DetokenizeRequest& request,
                          v1::DetokenizeResponse* response);

  CallRuntime* const runtime_;
  engine::ModelRegistry* const models_;
  store::Store* const store_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_MODEL_SERVICE_H_
