// Models beneath the model root, and their tokenizers.
#ifndef VALUESCOPE_SERVICES_MODEL_SERVICE_H_
#define VALUESCOPE_SERVICES_MODEL_SERVICE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model_registry.h"
#include "rpc/alarm_clock.h"
#include "rpc/call_context.h"
#include "rpc/waiter.h"
#include "services/replica_record.h"
#include "store/store.h"
#include "valuescope/v1/models.pb.h"

namespace valuescope::services {

class ModelService {
 public:
  // All outlive the service.
  ModelService(rpc::AlarmClock* clock, engine::ModelRegistry* models, store::Store* store,
               const Replicas* replicas)
      : clock_(clock), models_(models), store_(store), replicas_(replicas) {}

  absl::Status ListModels(const rpc::CallContext& context, const v1::ListModelsRequest& request,
                          v1::ListModelsResponse* response);
  absl::Status GetModel(const rpc::CallContext& context, const v1::GetModelRequest& request,
                        v1::GetModelResponse* response);
  absl::Status ListReplicas(const rpc::CallContext& context, const v1::ListReplicasRequest& request,
                            v1::ListReplicasResponse* response);
  absl::Status LoadModel(const rpc::CallContext& context, const v1::LoadModelRequest& request,
                         v1::LoadModelResponse* response);
  absl::StatusOr<std::unique_ptr<rpc::Waiter<v1::UnloadModelResponse*>>> UnloadModel(
      const rpc::CallContext& context, const v1::UnloadModelRequest& request, rpc::Wake wake);
  absl::Status Tokenize(const rpc::CallContext& context, const v1::TokenizeRequest& request,
                        v1::TokenizeResponse* response);
  absl::Status Detokenize(const rpc::CallContext& context, const v1::DetokenizeRequest& request,
                          v1::DetokenizeResponse* response);

 private:
  absl::Status CheckNoJobRunsOn(const std::string& id) const;

  rpc::AlarmClock* const clock_;
  engine::ModelRegistry* const models_;
  store::Store* const store_;
  const Replicas* const replicas_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_MODEL_SERVICE_H_
