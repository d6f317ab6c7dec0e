#include "bindings/bindings.h"
#include "services/tenant_service.h"
#include "valuescope/v1/tenants.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::TenantService* service) {
  using Service = services::TenantService;
  auto binding = std::make_unique<rpc::RpcService>(v1::TenantService::service_full_name(), runtime);
  binding->Unary("PublishResource", rpc::Lane::kQuick, service, &Service::PublishResource);
  binding->Unary("WithdrawResource", rpc::Lane::kQuick, service, &Service::WithdrawResource);
  binding->Unary("QueryUsage", rpc::Lane::kQuick, service, &Service::QueryUsage);
  return binding;
}

}  // namespace valuescope::bindings
