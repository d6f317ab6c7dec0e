// Generate, StreamGenerate and Score. One request becomes one engine request a completion or
// continuation; they share the engine's batches with everybody else's.
#ifndef VALUESCOPE_SERVICES_GENERATION_SERVICE_H_
#define VALUESCOPE_SERVICES_GENERATION_SERVICE_H_

#include "absl/status/status.h"
#include "engine/model_registry.h"
#include "observability/metrics.h"
#include "rpc/call_context.h"
#include "rpc/stream.h"
#include "services/vector_resolver.h"
#include "valuescope/v1/generation.pb.h"

namespace valuescope::services {

class GenerationService {
 public:
  // All outlive the service.
  GenerationService(observability::Metrics* metrics, const engine::ModelRegistry* models,
                    VectorResolver* vectors)
      : metrics_(metrics), models_(models), vectors_(vectors) {}

  absl::Status Generate(const rpc::CallContext& context, const v1::GenerateRequest& request,
                        v1::GenerateResponse* response);
  absl::Status StreamGenerate(const rpc::CallContext& context,
                              const v1::StreamGenerateRequest& request,
                              rpc::StreamWriter<v1::StreamGenerateResponse>& writer);
  absl::Status Score(const rpc::CallContext& context, const v1::ScoreRequest& request,
                     v1::ScoreResponse* response);

 private:
  observability::Metrics* const metrics_;
  const engine::ModelRegistry* const models_;
  VectorResolver* const vectors_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_GENERATION_SERVICE_H_
