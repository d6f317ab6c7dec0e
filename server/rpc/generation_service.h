// Generate, StreamGenerate and Score. One request becomes one engine request a completion or
// continuation; they share the engine's batches with everybody else's.
#ifndef VALUESCOPE_RPC_GENERATION_SERVICE_H_
#define VALUESCOPE_RPC_GENERATION_SERVICE_H_

#include "absl/status/status.h"
#include "engine/served_model.h"
#include "rpc/rpc_service.h"
#include "rpc/vector_resolver.h"
#include "valuescope/v1/generation.pb.h"

namespace valuescope::rpc {

class GenerationService : public RpcService {
 public:
  // All outlive the service.
  GenerationService(CallRuntime* runtime, const engine::ModelRegistry* models,
                    VectorResolver* vectors);

 private:
  absl::Status Generate(const CallContext& context, const v1::GenerateRequest& request,
                        v1::GenerateResponse* response);
  absl::Status StreamGenerate(const CallContext& context, const v1::StreamGenerateRequest& request,
                              StreamWriter<v1::StreamGenerateResponse>& writer);
  absl::Status Score(const CallContext& context, const v1::ScoreRequest& request,
                     v1::ScoreResponse* response);

  CallRuntime* const runtime_;
  const engine::ModelRegistry* const models_;
  VectorResolver* const vectors_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_GENERATION_SERVICE_H_
