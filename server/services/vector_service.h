// VectorService: extraction, decomposition, comparison and keeping of value vectors.
#ifndef VALUESCOPE_SERVICES_VECTOR_SERVICE_H_
#define VALUESCOPE_SERVICES_VECTOR_SERVICE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model_registry.h"
#include "rpc/call_context.h"
#include "rpc/stream.h"
#include "services/calls_at_once.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/compare_vectors.h"
#include "studies/decompose_vectors.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::services {

// Of a file of vectors in one message.
inline constexpr int64_t kVectorFileChunk = int64_t{1} << 20;
// With what tells where it belongs.
inline constexpr int64_t kMostVectorFileMessage = kVectorFileChunk + 1024;

class VectorService {
 public:
  // All outlive the service.
  VectorService(engine::ModelRegistry* models, store::Store* store, store::BlobStore* blobs,
                const KindRegistry* kinds)
      : models_(models), store_(store), blobs_(blobs), calls_(kinds, store, blobs) {}

  absl::Status ExtractVectors(const rpc::CallContext& context,
                              const v1::ExtractVectorsRequest& request,
                              v1::ExtractVectorsResponse* response);
  absl::Status DecomposeVectors(const rpc::CallContext& context,
                                const v1::DecomposeVectorsRequest& request,
                                v1::DecomposeVectorsResponse* response);
  absl::Status CompareVectors(const rpc::CallContext& context,
                              const v1::CompareVectorsRequest& request,
                              v1::CompareVectorsResponse* response);
  absl::Status CreateVector(const rpc::CallContext& context, const v1::CreateVectorRequest& request,
                            v1::CreateVectorResponse* response);
  absl::Status GetVector(const rpc::CallContext& context, const v1::GetVectorRequest& request,
                         v1::GetVectorResponse* response);
  absl::Status ListVectors(const rpc::CallContext& context, const v1::ListVectorsRequest& request,
                           v1::ListVectorsResponse* response);
  absl::Status DeleteVector(const rpc::CallContext& context, const v1::DeleteVectorRequest& request,
                            v1::DeleteVectorResponse* response);
  absl::Status ImportVectors(const rpc::CallContext& context,
                             rpc::StreamReader<v1::ImportVectorsRequest>& reader,
                             v1::ImportVectorsResponse* response);
  absl::Status ExportVectors(const rpc::CallContext& context,
                             const v1::ExportVectorsRequest& request,
                             rpc::StreamWriter<v1::ExportVectorsResponse>& writer);

 private:
  // `name` of a request's `field` with the chosen rows, and what they take held.
  absl::StatusOr<studies::StoredVector> VectorToExport(const rpc::CallContext& context,
                                                       const std::string& field,
                                                       const std::string& name,
                                                       const v1::Layers& layers) const;
  // Tokens of CompareVectors; `count` > 0.
  absl::Status AddTokens(const rpc::CallContext& context,
                         const std::vector<studies::NamedVector>& vectors,
                         const std::vector<int>& layers, int count,
                         v1::CompareVectorsResponse* response) const;

  engine::ModelRegistry* const models_;
  store::Store* const store_;
  store::BlobStore* const blobs_;
  const CallsAtOnce calls_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_VECTOR_SERVICE_H_
