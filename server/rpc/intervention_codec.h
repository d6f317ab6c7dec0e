// Interventions of the contract as the engine takes them: names resolved to numbers, tensors
// brought to [layers, ..., width], neurons grouped by layer. Errors name the field by its whole
// path
// ("interventions[2].add.tensor.shape") and the values it may have; nothing is allocated for a
// tensor before its shape is known to be right.
#ifndef VALUESCOPE_RPC_INTERVENTION_CODEC_H_
#define VALUESCOPE_RPC_INTERVENTION_CODEC_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "rpc/request_codec.h"
#include "rpc/vector_resolver.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::rpc {

struct InterventionScope {
  std::string tenant;
  const engine::ServedModel& model;
  VectorResolver& vectors;
};

// Adds the vectors and neuron sets used to `used`. INVALID_ARGUMENT, and the errors of
// VectorResolver.
absl::StatusOr<std::vector<engine::Intervention>> InterventionsFromProto(
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const InterventionScope& scope, UsedResources& used);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_INTERVENTION_CODEC_H_
