#include "bindings/bindings.h"
#include "services/generation_service.h"
#include "valuescope/v1/generation.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::GenerationService* service) {
  using Service = services::GenerationService;
  auto binding =
      std::make_unique<rpc::RpcService>(v1::GenerationService::service_full_name(), runtime);
  binding->Unary("Generate", rpc::Lane::kLong, service, &Service::Generate);
  binding->ServerStream("StreamGenerate", rpc::Lane::kLong, service, &Service::StreamGenerate);
  binding->Unary("Score", rpc::Lane::kLong, service, &Service::Score);
  return binding;
}

}  // namespace valuescope::bindings
