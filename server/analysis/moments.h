// Mergeable moments of vectors: count, mean and sum of squared deviations per coordinate, in
// float64. Welford's update for one observation, Chan's rule for two sets:
//   delta = mean_b - mean_a;  mean = mean_a + delta n_b / n;  M2 = M2_a + M2_b + delta^2 n_a n_b /
//   n
// so the pieces of a data set can be accumulated apart, stored and merged: any split or order gives
// the same result to rounding, the same split and order gives the same bits.
#ifndef VALUESCOPE_ANALYSIS_MOMENTS_H_
#define VALUESCOPE_ANALYSIS_MOMENTS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::analysis {

class VectorMoments {
 public:
  // Moments of no observations of `width` >= 0 coordinates.
  explicit VectorMoments(int64_t width = 0);

  // Adds one observation [width]. INVALID_ARGUMENT, and no change, if the length differs or an
  // element is not finite.
  absl::Status Add(std::span<const float> observation);
  absl::Status Add(std::span<const double> observation);

  // Adds all observations of `other`. INVALID_ARGUMENT, and no change, if the widths differ.
  absl::Status Merge(const VectorMoments& other);

  int64_t width() const { return static_cast<int64_t>(mean_.size()); }
  int64_t count() const { return count_; }
  // [width]; zeros where count() is 0.
  std::span<const double> mean() const { return mean_; }
  // Sum of squared deviations from the mean, per coordinate [width].
  std::span<const double> squared_deviations() const { return squared_deviations_; }
  // Trace of the sample covariance, divided by n - 1; absent below two observations.
  std::optional<double> CovarianceTrace() const;

  // "VSMOMENT", version, width, count, mean, squared deviations; little-endian. Equal moments give
  // equal bytes.
  std::string Serialize() const;

  // Of what Serialize gives.
  static int64_t SerializedBytes(int64_t width);

  // Reads what Serialize wrote. `width` is the width the caller expects: bytes of another one, of
  // another version, truncated or holding impossible numbers are DATA_LOSS.
  static absl::StatusOr<VectorMoments> Parse(absl::string_view bytes, int64_t width);

 private:
  template <typename T>
  absl::Status AddObservation(std::span<const T> observation);

  int64_t count_ = 0;
  std::vector<double> mean_;                // [width]
  std::vector<double> squared_deviations_;  // [width]
};

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_MOMENTS_H_
