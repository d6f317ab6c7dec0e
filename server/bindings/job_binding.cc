#include "bindings/bindings.h"
#include "services/job_service.h"
#include "valuescope/v1/jobs.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::JobService* service) {
  using Service = services::JobService;
  auto binding = std::make_unique<rpc::RpcService>(v1::JobService::service_full_name(), runtime);
  binding->Unary("CreateJob", rpc::Lane::kLong, service, &Service::CreateJob);
  binding->Unary("GetJob", rpc::Lane::kQuick, service, &Service::GetJob);
  binding->Unary("ListJobs", rpc::Lane::kQuick, service, &Service::ListJobs);
  binding->WaitingStream("WatchJob", service, &Service::WatchJob);
  binding->Unary("CancelJob", rpc::Lane::kQuick, service, &Service::CancelJob);
  binding->Unary("RetryJob", rpc::Lane::kQuick, service, &Service::RetryJob);
  binding->Unary("DeleteJob", rpc::Lane::kQuick, service, &Service::DeleteJob);
  return binding;
}

}  // namespace valuescope::bindings
