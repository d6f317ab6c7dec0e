// What prompting adds whatever the value is (Han et al., arXiv 2509.24319), at one layer: the mean
// over values s of delta_s = v_prompt,s - v_int,s, and how much of all deltas it explains.
#ifndef VALUESCOPE_ANALYSIS_MEAN_DELTA_H_
#define VALUESCOPE_ANALYSIS_MEAN_DELTA_H_

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/decomposition.h"

namespace valuescope::analysis {

struct MeanDelta {
  std::vector<float> direction;  // [width] m, unit; empty where the mean is zero
  double norm = 0;               // |mean of the deltas|
  // sum <delta_s, m>^2 / sum |delta_s|^2, 0 .. 1; absent where the mean is zero.
  std::optional<double> explained_variance;
  // Mean of cos(delta_s, delta_t) over s < t; absent where fewer than two deltas have a direction.
  std::optional<double> mean_pairwise_cosine;
  // Values whose delta is zero, ascending. Such a delta has no cosines; it counts in the mean, but
  // not in that of unit deltas, of which it has none.
  std::vector<size_t> zero_deltas;
};

struct MeanDeltaOptions {
  // Scales every delta to unit norm first.
  bool unit_deltas = false;
};

// Deltas cancel where their mean is at most this part of the longest: rounding decides where it
// points.
inline constexpr double kCancelledMean = 1e-12;

// One pair a value, all of one layer. INVALID_ARGUMENT, naming `pairs` or one of its vectors: no
// pairs, lengths differ or are 0, an element is not finite.
absl::StatusOr<MeanDelta> ComputeMeanDelta(std::span<const VectorPair> pairs,
                                           const MeanDeltaOptions& options = {});

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_MEAN_DELTA_H_
