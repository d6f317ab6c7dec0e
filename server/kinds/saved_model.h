// A model as stored work names it: numbers of other weights, or of the same ones in another type,
// are no part of it.
#ifndef VALUESCOPE_KINDS_SAVED_MODEL_H_
#define VALUESCOPE_KINDS_SAVED_MODEL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/model_registry.h"
#include "engine/served_model.h"
#include "kinds/saved_work.pb.h"

namespace valuescope::kinds {

SavedModel SavedModelOf(const engine::ServedModel& model);

// NotReady where it is not READY, or no longer. FAILED_PRECONDITION (reason WRONG_MODEL) where it
// has other weights than `then`, or computes in another type or on other hardware.
absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelAsThen(
    const engine::ModelRegistry& models, const SavedModel& then);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SAVED_MODEL_H_
