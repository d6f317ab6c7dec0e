// Sums over labelled responses from which the difference in means of a layer follows, by half of
// the data and label. They can be accumulated apart, stored and merged, so that nothing of a single
// response need be kept.
#ifndef VALUESCOPE_ANALYSIS_LAYER_SUMS_H_
#define VALUESCOPE_ANALYSIS_LAYER_SUMS_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/moments.h"

namespace valuescope::analysis {

// Of the responses of one half and label.
struct LabelSums {
  VectorMoments moments;  // each response counts once
  std::vector<double>
      weighted;       // [width] sum of a(r) times its weight; empty where each counts once
  double weight = 0;  // sum of the weights

  absl::Status Add(std::span<const double> row, double row_weight);  // row: [width]
  absl::Status Merge(const LabelSums& other);
  std::vector<double> Mean() const;  // [width]
};

struct LayerSums {
  std::array<std::array<LabelSums, 2>, 2> of;  // [half][label]
  double response_norms = 0;                   // sum of |a(r)|
  double token_norms = 0;                      // sum of |x| over tokens, where it is known

  LayerSums(int64_t width, bool weigh_by_tokens);

  // Of both halves.
  absl::StatusOr<LabelSums> OfLabel(int label) const;

  absl::Status Add(std::span<const double> row, int half, int label, double weight);
  absl::Status Merge(const LayerSums& other);

  // That many bytes, the same for equal sums.
  static int64_t SerializedBytes(int64_t width, bool weigh_by_tokens);
  void AppendTo(std::string& out) const;
  // DATA_LOSS for bytes of another number or width, or impossible numbers.
  static absl::StatusOr<LayerSums> Parse(absl::string_view bytes, int64_t width,
                                         bool weigh_by_tokens);
};

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_LAYER_SUMS_H_
