// Interventions of the contract as the engine takes them: names resolved to numbers, tensors
// brought to [layers, ..., width], neurons grouped by layer. Errors name the field by its whole
// path
// ("interventions[2].add.tensor.shape") and the values it may have. Sizes come first: what the
// tables and the host would have to hold follows from the shapes that the request declares and from
// the metadata of what it names, and is taken or refused before a name is read or a byte allocated.
#ifndef VALUESCOPE_SERVICES_INTERVENTION_CODEC_H_
#define VALUESCOPE_SERVICES_INTERVENTION_CODEC_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "services/request_codec.h"
#include "services/vector_resolver.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

struct InterventionScope {
  std::string tenant;
  const engine::ServedModel& model;
  VectorResolver& vectors;
};

struct CallInterventions {
  std::vector<engine::Intervention> interventions;
  std::shared_ptr<MemoryLedger::Lease> memory;  // for them and what is made of them
};

// Adds the vectors and neuron sets used to `used`. INVALID_ARGUMENT; RESOURCE_EXHAUSTED where they
// are too large for the model's engine (engine::Engine::CheckInterventionBytes, TakeRequestMemory);
// the errors of VectorResolver.
absl::StatusOr<CallInterventions> InterventionsFromProto(
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const InterventionScope& scope, UsedResources& used);

// The same, prepared for all requests of the call; the errors of engine::Engine::Prepare too.
absl::StatusOr<std::shared_ptr<const engine::PreparedInterventions>> PreparedFromProto(
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const InterventionScope& scope, UsedResources& used);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_INTERVENTION_CODEC_H_
