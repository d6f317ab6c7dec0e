#include "bindings/bindings.h"
#include "services/model_service.h"
#include "valuescope/v1/models.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::ModelService* service) {
  using Service = services::ModelService;
  auto binding = std::make_unique<rpc::RpcService>(v1::ModelService::service_full_name(), runtime);
  binding->Unary("ListModels", rpc::Lane::kQuick, service, &Service::ListModels);
  binding->Unary("GetModel", rpc::Lane::kQuick, service, &Service::GetModel);
  binding->Unary("ListReplicas", rpc::Lane::kQuick, service, &Service::ListReplicas);
  binding->Unary("LoadModel", rpc::Lane::kQuick, service, &Service::LoadModel);
  binding->WaitingUnary("UnloadModel", service, &Service::UnloadModel);
  // A second and more for the longest texts.
  binding->Unary("Tokenize", rpc::Lane::kLong, service, &Service::Tokenize);
  binding->Unary("Detokenize", rpc::Lane::kLong, service, &Service::Detokenize);
  return binding;
}

}  // namespace valuescope::bindings
