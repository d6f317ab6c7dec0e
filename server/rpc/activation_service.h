// Capture: activations of given texts, input by input, as a stream.
#ifndef VALUESCOPE_RPC_ACTIVATION_SERVICE_H_
#define VALUESCOPE_RPC_ACTIVATION_SERVICE_H_

#include "absl/status/status.h"
#include "engine/served_model.h"
#include "rpc/rpc_service.h"
#include "rpc/vector_resolver.h"
#include "valuescope/v1/activations.pb.h"

namespace valuescope::rpc {

class ActivationService : public RpcService {
 public:
  // All outlive the service.
  ActivationService(CallRuntime* runtime, const engine::ModelRegistry* models,
                    VectorResolver* vectors);

 private:
  absl::Status Capture(const CallContext& context, const v1::CaptureRequest& request,
                       StreamWriter<v1::CaptureResponse>& writer);

  const engine::ModelRegistry* const models_;
  VectorResolver* const vectors_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_ACTIVATION_SERVICE_H_
