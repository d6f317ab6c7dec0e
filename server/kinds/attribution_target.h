// The target of an attribution as requests name it, as it is saved with a job, and as the engine
// takes it.
#ifndef VALUESCOPE_KINDS_ATTRIBUTION_TARGET_H_
#define VALUESCOPE_KINDS_ATTRIBUTION_TARGET_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/neuron_request.h"
#include "engine/served_model.h"
#include "kinds/response_work.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {

struct ResolvedTarget {
  v1::AttributionTarget record;                 // a continuation is token ids
  std::optional<studies::StoredVector> vector;  // with a row for the target's layer
  std::string vector_id;                        // without "vectors/"; empty where there is none
};

// INVALID_ARGUMENT naming a field of "target"; the errors of services::HeldVectorOfName. The vector
// is added to `used`.
absl::StatusOr<ResolvedTarget> ResolveTarget(const v1::AttributionTarget& target,
                                             const engine::ServedModel& model,
                                             const rpc::CallContext& context,
                                             const Sources& sources, services::UsedResources& used);

// `vector` is the record's; null where it has none. INVALID_ARGUMENT naming the target's tokens
// where a selection is none, or has more positions than the model's context of `context` tokens.
absl::StatusOr<engine::NeuronTarget> EngineTarget(const v1::AttributionTarget& record,
                                                  const studies::StoredVector* vector,
                                                  int64_t context);

// The contract's name of a field that engine and studies call "target.tokens...",
// "target.positive..." or "target.negative...".
absl::Status TargetNamedAsAsked(const v1::AttributionTarget& record, const absl::Status& status);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_ATTRIBUTION_TARGET_H_
