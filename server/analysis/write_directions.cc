#include "analysis/write_directions.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

absl::Status CheckShape(const WriteDirections& weights) {
  if (weights.hidden < 1 || weights.intermediate < 1 ||
      weights.hidden > std::numeric_limits<int64_t>::max() / weights.intermediate ||
      weights.columns.size() != static_cast<size_t>(weights.hidden * weights.intermediate)) {
    return InvalidField("weights",
                        absl::StrCat("has ", weights.columns.size(), " elements, must have ",
                                     weights.hidden, " x ", weights.intermediate));
  }
  return absl::OkStatus();
}

// Sums over finite float32 weights stay finite in float64, so one look at the sums tells.
absl::Status CheckSums(const std::vector<double>& sums) {
  if (!AllFinite(sums)) return InvalidField("weights", "must be finite", "NOT_FINITE");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<double>> ProjectColumns(const WriteDirections& weights,
                                                   std::span<const double> direction,
                                                   absl::string_view field) {
  VS_RETURN_IF_ERROR(CheckShape(weights));
  if (direction.size() != static_cast<size_t>(weights.hidden)) {
    return InvalidField(
        field, absl::StrCat("has ", direction.size(), " elements, must have ", weights.hidden));
  }
  if (!AllFinite(direction)) return InvalidField(field, "must be finite", "NOT_FINITE");
  std::vector<double> sums(weights.intermediate, 0.0);
  for (int64_t h = 0; h < weights.hidden; ++h) {
    const float* row = weights.columns.data() + h * weights.intermediate;
    const double coordinate = direction[h];
    for (int64_t i = 0; i < weights.intermediate; ++i) sums[i] += coordinate * row[i];
  }
  VS_RETURN_IF_ERROR(CheckSums(sums));
  return sums;
}

absl::StatusOr<std::vector<double>> SquaredColumnNorms(const WriteDirections& weights) {
  VS_RETURN_IF_ERROR(CheckShape(weights));
  std::vector<double> sums(weights.intermediate, 0.0);
  for (int64_t h = 0; h < weights.hidden; ++h) {
    const float* row = weights.columns.data() + h * weights.intermediate;
    for (int64_t i = 0; i < weights.intermediate; ++i) {
      sums[i] += static_cast<double>(row[i]) * row[i];
    }
  }
  VS_RETURN_IF_ERROR(CheckSums(sums));
  return sums;
}

}  // namespace valuescope::analysis
