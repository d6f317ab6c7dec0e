// What follows from the measured points of a sweep (SweepPoint of the contract): which of them keep
// the guard, which is the best of each subject, and what the best of random directions comes to.
//
// The best of a grid is larger than a point of it, by chance alone. So a random direction is tuned
// as its subject is: over the same grid, under the same guard, by the same objective. With R of
// them the subject's best value has p = (1 + #{random bests at least as good}) / (1 + R) (Davison
// and Hinkley, 1997, 4.2); a random direction of which no point passes has no best and counts as
// worse.
#ifndef VALUESCOPE_STUDIES_STEERING_SWEEP_H_
#define VALUESCOPE_STUDIES_STEERING_SWEEP_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "valuescope/v1/sweeps.pb.h"

namespace valuescope::studies {

using SweepBounds = google::protobuf::RepeatedPtrField<v1::SweepBound>;

// The value of a measure of a point; absent where it has none.
std::optional<double> SweepValue(const v1::SweepPoint& point, absl::string_view evaluation,
                                 absl::string_view measure);

// Sets `passes` and `failed_bounds`.
void ApplyGuard(const SweepBounds& guard, const v1::SweepPoint& baseline, v1::SweepPoint& point);

// The selection of each of `subjects` among `points`, to which the guard was applied.
// `num_unmatched` is left to the caller.
std::vector<v1::SweepSelection> SelectPoints(const v1::SweepObjective& objective,
                                             std::span<const std::string> subjects, int num_random,
                                             std::span<const v1::SweepPoint> points);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_STEERING_SWEEP_H_
