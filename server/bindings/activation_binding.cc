#include "bindings/bindings.h"
#include "services/activation_service.h"
#include "valuescope/v1/activations.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::ActivationService* service) {
  using Service = services::ActivationService;
  auto binding =
      std::make_unique<rpc::RpcService>(v1::ActivationService::service_full_name(), runtime);
  binding->ServerStream("Capture", rpc::Lane::kLong, service, &Service::Capture);
  return binding;
}

}  // namespace valuescope::bindings
