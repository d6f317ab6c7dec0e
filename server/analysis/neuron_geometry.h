// Value neurons by geometry, from weights alone (Han et al., arXiv 2509.24319). In one block, p_i
// is the projection of the write direction w_i on span(u_shared, u_diff). The top percent of the
// block by |p_i| are kept; a kept neuron gets the class of the nearest axis among u_shared, u_int =
// u_diff and u_prompt = -u_diff (signed variant: -u_shared too) if that is nearer than a largest
// angle.
//
// Null: for isotropic directions the angle of p_i is uniform, so an axis with largest angle t takes
// 2 t / 360 of the kept neurons (1/6 each at 30 degrees, 1/2 unclassified; signed 1/3), and
// P(|p|^2 / |w|^2 > t) = (1 - t)^((d - 2) / 2) in d dimensions.
#ifndef VALUESCOPE_ANALYSIS_NEURON_GEOMETRY_H_
#define VALUESCOPE_ANALYSIS_NEURON_GEOMETRY_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/write_directions.h"

namespace valuescope::analysis {

enum class NeuronClass : uint8_t {
  kNone,            // left out: not among the top percent of its block
  kUnclassified,    // kept, but no axis is near enough
  kShared,          // nearest to u_shared
  kIntrinsic,       // nearest to u_int = u_diff
  kPrompted,        // nearest to u_prompt = -u_diff
  kSharedNegative,  // nearest to -u_shared; only in the signed variant
};
inline constexpr int kNumNeuronClasses = 6;

struct NeuronGeometryOptions {
  double top_percent = 1.0;            // in (0, 100]; floor of it is kept, at least one neuron
  double max_angle_degrees = 30.0;     // in (0, 45]; a neuron exactly there is unclassified
  bool admit_negative_shared = false;  // the signed variant
  bool rank_by_relative_norm = false;  // ranks by |p_i| / |w_i| instead of |p_i|
};

// The axes of one layer; lengths do not matter, and u_diff is orthogonalised on u_shared.
struct ValueAxes {
  std::span<const float> shared;      // [hidden] u_shared
  std::span<const float> difference;  // [hidden] u_diff, towards the intrinsic side
};

// One entry a neuron, [intermediate] each.
struct NeuronGeometry {
  std::vector<double> scores;            // |p_i|, or |p_i| / |w_i| where the ranking is relative
  std::vector<double> projection_norms;  // |p_i|
  std::vector<double> angles;            // to the nearest axis, degrees 0 .. 180; 90 where p_i is 0
  std::vector<NeuronClass> classes;
  // Kept neurons, largest score first, ties by index.
  std::vector<int32_t> members;
  // Neurons of each class, by NeuronClass.
  std::array<int64_t, kNumNeuronClasses> counts = {};
  // Expected under the isotropic null, out of the neurons kept.
  std::array<double, kNumNeuronClasses> expected_counts = {};
};

// INVALID_ARGUMENT: sizes that do not fit together, non-finite elements, options out of range, axes
// that are zero or collinear.
absl::StatusOr<NeuronGeometry> ClassifyNeurons(const WriteDirections& weights,
                                               const ValueAxes& axes,
                                               const NeuronGeometryOptions& options = {});

// P(|p|^2 / |w|^2 > squared_ratio) for an isotropic direction in `width` >= 2 dimensions;
// squared_ratio in 0 .. 1.
double IsotropicExceedance(double squared_ratio, int64_t width);

// The squared ratio that a fraction `probability` (in (0, 1]) of isotropic directions exceeds:
// 1 - probability^(2 / (width - 2)); width >= 3.
double IsotropicQuantile(double probability, int64_t width);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_NEURON_GEOMETRY_H_
