#include "bindings/bindings.h"
#include "services/artifact_service.h"
#include "valuescope/v1/artifacts.grpc.pb.h"

namespace valuescope::bindings {

std::unique_ptr<rpc::RpcService> Bind(rpc::CallRuntime* runtime,
                                      services::ArtifactService* service) {
  using Service = services::ArtifactService;
  auto binding =
      std::make_unique<rpc::RpcService>(v1::ArtifactService::service_full_name(), runtime);
  binding->ClientStream("WriteArtifact", rpc::Lane::kFiles, services::kMostChunkMessage, service,
                        &Service::WriteArtifact);
  binding->Unary("GetArtifact", rpc::Lane::kQuick, service, &Service::GetArtifact);
  binding->Unary("ListArtifacts", rpc::Lane::kQuick, service, &Service::ListArtifacts);
  binding->ServerStream("ReadArtifact", rpc::Lane::kFiles, service, &Service::ReadArtifact);
  binding->ServerStream("ReadTable", rpc::Lane::kFiles, service, &Service::ReadTable);
  binding->Unary("DeleteArtifact", rpc::Lane::kQuick, service, &Service::DeleteArtifact);
  return binding;
}

}  // namespace valuescope::bindings
