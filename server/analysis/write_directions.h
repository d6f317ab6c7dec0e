// What the neurons of one MLP write: column i of down_proj is added to the residual stream once per
// unit of neuron i's activation.
#ifndef VALUESCOPE_ANALYSIS_WRITE_DIRECTIONS_H_
#define VALUESCOPE_ANALYSIS_WRITE_DIRECTIONS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace valuescope::analysis {

// The memory is the caller's. A model that normalises after the MLP passes its effective columns.
struct WriteDirections {
  std::span<const float> columns;  // [hidden, intermediate] row-major; column i belongs to neuron i
  int64_t hidden = 0;              // >= 1
  int64_t intermediate = 0;        // >= 1
};

// <w_i, direction> for every neuron: [intermediate]. `direction` is [hidden]; `field` names it in
// errors. INVALID_ARGUMENT: sizes that do not fit together, a non-finite element.
absl::StatusOr<std::vector<double>> ProjectColumns(const WriteDirections& weights,
                                                   std::span<const double> direction,
                                                   absl::string_view field);

// |w_i|^2 for every neuron: [intermediate]. The same errors.
absl::StatusOr<std::vector<double>> SquaredColumnNorms(const WriteDirections& weights);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_WRITE_DIRECTIONS_H_
