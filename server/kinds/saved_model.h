// A model as stored work names it: numbers of other weights, or of the same ones in another type,
// are no part of it.
#ifndef VALUESCOPE_KINDS_SAVED_MODEL_H_
#define VALUESCOPE_KINDS_SAVED_MODEL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/model_registry.h"
#include "engine/served_model.h"
#include "kinds/saved_work.pb.h"
#include "services/model_needs.h"

namespace valuescope::kinds {

// SavedWork::format_version: the first that is read, and that which is written. Work of versions up
// to 5 fails where its model is another than it was, which that of version 6 waits for. From 8 on a
// job needs a server that knows the version that is written (services::NeedOfWork), which is no
// later one than what it says needs.
inline constexpr int kFirstSavedWork = 2;
inline constexpr int kSavedWorkThatWaits = 6;
inline constexpr int kSavedWorkOfValues = 7;    // several vectors, labels of a named value
inline constexpr int kSavedWorkOfRankings = 8;  // several rankings, where there are some
inline constexpr int kLatestSavedWork = services::kLatestWork;

SavedModel SavedModelOf(const engine::ServedModel& model);

// NotReady where it is not READY, or no longer, or, where the work can wait for that, has other
// weights than `then` or computes in another type or on other hardware; else FAILED_PRECONDITION
// (reason WRONG_MODEL).
absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelAsThen(
    const engine::ModelRegistry& models, const SavedModel& then, bool can_wait);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SAVED_MODEL_H_
