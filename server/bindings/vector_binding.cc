#include "bindings/bindings.h"
#include "services/vector_service.h"
#include "valuescope/v1/vectors.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime, services::VectorService* service) {
  using Service = services::VectorService;
  auto binding = std::make_unique<rpc::RpcService>(v1::VectorService::service_full_name(), runtime);
  binding->Unary("ExtractVectors", rpc::Lane::kLong, service, &Service::ExtractVectors);
  binding->Unary("DecomposeVectors", rpc::Lane::kLong, service, &Service::DecomposeVectors);
  binding->Unary("CompareVectors", rpc::Lane::kLong, service, &Service::CompareVectors);
  binding->Unary("CreateVector", rpc::Lane::kLong, service, &Service::CreateVector);
  binding->Unary("GetVector", rpc::Lane::kQuick, service, &Service::GetVector);
  binding->Unary("ListVectors", rpc::Lane::kQuick, service, &Service::ListVectors);
  binding->Unary("DeleteVector", rpc::Lane::kQuick, service, &Service::DeleteVector);
  binding->ClientStream("ImportVectors", rpc::Lane::kFiles, services::kMostVectorFileMessage,
                        service, &Service::ImportVectors);
  binding->ServerStream("ExportVectors", rpc::Lane::kFiles, service, &Service::ExportVectors);
  return binding;
}

}  // namespace valuescope::bindings
