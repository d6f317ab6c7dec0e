// A method of attribution as it is saved with a job, where everything that a request names or
// leaves out is resolved, and the method that does it.
#ifndef VALUESCOPE_KINDS_SAVED_ATTRIBUTION_H_
#define VALUESCOPE_KINDS_SAVED_ATTRIBUTION_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/saved_work.pb.h"
#include "studies/attribution_method.h"
#include "studies/stored_vector.h"
#include "studies/target_attribution.h"

namespace valuescope::kinds {

std::optional<int> SourceLayerOf(const SavedAttribution& record);

// Whether the method says what neurons do to a target.
bool HasTarget(const SavedAttribution& record);

// The vectors that a record names.
struct AttributionVectors {
  // With a row for the target's layer, or those that direct contribution needs.
  std::optional<studies::StoredVector> vector;
  std::optional<studies::StoredVector> reference;  // with a row for each layer
};

// Of a record with a target. INVALID_ARGUMENT naming "tokens" or the target's where a selection is
// none, or has more positions than the model's context.
absl::StatusOr<studies::TargetPlan> TargetPlanOf(const SavedAttribution& record,
                                                 const AttributionVectors& vectors,
                                                 const model::Architecture& architecture);

// The contract's name of a field that the engine calls "tokens...", "target.tokens...",
// "target.positive..." or "target.negative...", of a record with a target.
absl::Status NamedAsAsked(const SavedAttribution& record, const absl::Status& status);

// Errors of TargetPlanOf.
absl::StatusOr<std::unique_ptr<studies::AttributionMethod>> MethodOf(
    const SavedAttribution& record, AttributionVectors vectors, const engine::ServedModel& model);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SAVED_ATTRIBUTION_H_
