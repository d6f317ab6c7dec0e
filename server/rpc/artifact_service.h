// ArtifactService: files in and out, in checksummed chunks.
#ifndef VALUESCOPE_RPC_ARTIFACT_SERVICE_H_
#define VALUESCOPE_RPC_ARTIFACT_SERVICE_H_

#include "rpc/rpc_service.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/artifacts.pb.h"

namespace valuescope::rpc {

class ArtifactService : public RpcService {
 public:
  // All outlive the service.
  ArtifactService(CallRuntime* runtime, store::Store* store, store::BlobStore* blobs);

 private:
  absl::Status WriteArtifact(const CallContext& context,
                             StreamReader<v1::WriteArtifactRequest>& reader,
                             v1::WriteArtifactResponse* response);
  absl::Status GetArtifact(const CallContext& context, const v1::GetArtifactRequest& request,
                           v1::GetArtifactResponse* response);
  absl::Status ListArtifacts(const CallContext& context, const v1::ListArtifactsRequest& request,
                             v1::ListArtifactsResponse* response);
  absl::Status ReadArtifact(const CallContext& context, const v1::ReadArtifactRequest& request,
                            StreamWriter<v1::ReadArtifactResponse>& writer);
  absl::Status DeleteArtifact(const CallContext& context, const v1::DeleteArtifactRequest& request,
                              v1::DeleteArtifactResponse* response);

  absl::StatusOr<store::Resource> Find(const std::string& tenant, const std::string& name) const;

  store::Store* const store_;
  store::BlobStore* const blobs_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_ARTIFACT_SERVICE_H_
