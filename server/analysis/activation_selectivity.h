// How selective neurons are among several values, by how often they are active: language activation
// probability entropy (Tang et al., "Language-Specific Neurons", ACL 2024), of values in place of
// languages. With p_k = P(active | value k), the shares p_k / sum p have the entropy
//   H = -sum_k q_k log q_k, q_k = p_k / sum p,
// from 0, active for one value alone, to log K, active for all K alike. Shares say nothing of how
// often a neuron is active at all, so members are only those with a p_k that is high among the
// probabilities of all neurons and values.
#ifndef VALUESCOPE_ANALYSIS_ACTIVATION_SELECTIVITY_H_
#define VALUESCOPE_ANALYSIS_ACTIVATION_SELECTIVITY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace valuescope::analysis {

inline constexpr size_t kMostSelectivityValues = 64;  // a bit each

struct SelectivityOptions {
  double activity_percentile = 95;  // 0 .. 100, of all p_k, by linear interpolation
  double top_percent = 1;           // in (0, 100], of all neurons; floor of it, at least one
};

struct ActivationSelectivity {
  std::vector<double> scores;    // [neurons] log K - H, nats; 0 of a neuron that is never active
  std::vector<uint64_t> values;  // [neurons] bit k: p_k is above 0 and not below the threshold
  // Neurons with a value, as many as top_percent allows, largest score first, ties by index.
  std::vector<int64_t> members;
  double activity_threshold = 0;  // p at activity_percentile
};

// `probabilities` are p_k [neurons] of each of 2 .. kMostSelectivityValues values k.
// INVALID_ARGUMENT: other numbers of values, sizes that differ, no neurons, elements outside 0 ..
// 1, options out of range.
absl::StatusOr<ActivationSelectivity> ScoreSelectivity(
    std::span<const std::vector<double>> probabilities, const SelectivityOptions& options = {});

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_ACTIVATION_SELECTIVITY_H_
