// Capture: activations of given texts, input by input, as a stream.
#ifndef VALUESCOPE_SERVICES_ACTIVATION_SERVICE_H_
#define VALUESCOPE_SERVICES_ACTIVATION_SERVICE_H_

#include "absl/status/status.h"
#include "engine/model_registry.h"
#include "rpc/call_context.h"
#include "rpc/stream.h"
#include "services/vector_resolver.h"
#include "valuescope/v1/activations.pb.h"

namespace valuescope::services {

class ActivationService {
 public:
  // All outlive the service.
  ActivationService(const engine::ModelRegistry* models, VectorResolver* vectors)
      : models_(models), vectors_(vectors) {}

  absl::Status Capture(const rpc::CallContext& context, const v1::CaptureRequest& request,
                       rpc::StreamWriter<v1::CaptureResponse>& writer);

 private:
  const engine::ModelRegistry* const models_;
  VectorResolver* const vectors_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_ACTIVATION_SERVICE_H_
