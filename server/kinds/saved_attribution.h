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
#include "studies/gradient_attribution.h"
#include "studies/stored_vector.h"

namespace valuescope::kinds {

std::optional<int> SourceLayerOf(const SavedAttribution& record);

// Whether it is attribution patching or integrated gradients.
bool IsByGradients(const SavedAttribution& record);

// Of a record by gradients. `vector` is the record's, with a row for the target's layer; null where
// it has none. INVALID_ARGUMENT naming "tokens" or the target's where a selection is none, or has
// more positions than the model's context of `context` tokens.
absl::StatusOr<studies::GradientPlan> GradientPlanOf(const SavedAttribution& record,
                                                     const studies::StoredVector* vector,
                                                     int64_t context);

// The contract's name of a field that studies call "tokens..." or "target.tokens...", of a record
// by gradients.
absl::Status NamedAsAsked(const SavedAttribution& record, const absl::Status& status);

// `vector` is the record's, which has one for direct contribution and some targets. Errors of
// GradientPlanOf.
absl::StatusOr<std::unique_ptr<studies::AttributionMethod>> MethodOf(
    const SavedAttribution& record, std::optional<studies::StoredVector> vector,
    const engine::ServedModel& model);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SAVED_ATTRIBUTION_H_
