// ArtifactService: files in and out, in checksummed chunks; data sets out as tables too.
#ifndef VALUESCOPE_SERVICES_ARTIFACT_SERVICE_H_
#define VALUESCOPE_SERVICES_ARTIFACT_SERVICE_H_

#include "rpc/call_context.h"
#include "rpc/stream.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/artifacts.pb.h"

namespace valuescope::services {

// Of an artifact's bytes in one message.
inline constexpr int64_t kArtifactChunk = int64_t{1} << 20;
// A chunk with what tells where it belongs.
inline constexpr int64_t kMostChunkMessage = kArtifactChunk + 1024;

class ArtifactService {
 public:
  // All outlive the service.
  ArtifactService(store::Store* store, store::BlobStore* blobs) : store_(store), blobs_(blobs) {}

  absl::Status WriteArtifact(const rpc::CallContext& context,
                             rpc::StreamReader<v1::WriteArtifactRequest>& reader,
                             v1::WriteArtifactResponse* response);
  absl::Status GetArtifact(const rpc::CallContext& context, const v1::GetArtifactRequest& request,
                           v1::GetArtifactResponse* response);
  absl::Status ListArtifacts(const rpc::CallContext& context,
                             const v1::ListArtifactsRequest& request,
                             v1::ListArtifactsResponse* response);
  absl::Status ReadArtifact(const rpc::CallContext& context, const v1::ReadArtifactRequest& request,
                            rpc::StreamWriter<v1::ReadArtifactResponse>& writer);
  absl::Status ReadTable(const rpc::CallContext& context, const v1::ReadTableRequest& request,
                         rpc::StreamWriter<v1::ReadTableResponse>& writer);
  absl::Status DeleteArtifact(const rpc::CallContext& context,
                              const v1::DeleteArtifactRequest& request,
                              v1::DeleteArtifactResponse* response);

 private:
  absl::StatusOr<store::Resource> Find(const std::string& tenant, const std::string& name) const;

  store::Store* const store_;
  store::BlobStore* const blobs_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_ARTIFACT_SERVICE_H_
