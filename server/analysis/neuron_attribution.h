// Direct contribution of MLP neurons to a value vector: neuron i of a block adds
//   (mean_exp a_i - mean_unexp a_i) <w_i, v> / |v|^2
// of v, where a_i is the input of down_proj and w_i column i of it. The sum over a block is the
// share of v that its MLP writes; with the shares of the embedding and the attention outputs of all
// blocks up to v's layer it is 1 (the residual stream is their sum).
#ifndef VALUESCOPE_ANALYSIS_NEURON_ATTRIBUTION_H_
#define VALUESCOPE_ANALYSIS_NEURON_ATTRIBUTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/write_directions.h"

namespace valuescope::analysis {

// Means over responses of the mean activation over response tokens; [intermediate] each.
struct NeuronActivationMeans {
  std::span<const double> expressing;
  std::span<const double> non_expressing;
};

struct DirectContribution {
  std::vector<double> scores;  // [intermediate]
  double score_sum = 0;        // share of |v|^2 that the block's MLP writes
  double score_min = 0;
  double score_max = 0;
};

// `vector` is v [hidden]. INVALID_ARGUMENT: sizes that do not fit together, non-finite elements,
// v = 0.
absl::StatusOr<DirectContribution> ComputeDirectContribution(const NeuronActivationMeans& means,
                                                             const WriteDirections& weights,
                                                             std::span<const float> vector);

struct LayerScores {
  int layer = 0;                   // absolute block
  std::span<const double> scores;  // [intermediate]
};

struct RankedNeuron {
  int layer = 0;
  int32_t index = 0;
  double score = 0;
};

// The `top_k` >= 0 neurons of largest |score| over all layers, largest first, ties by layer, then
// index.
std::vector<RankedNeuron> RankNeurons(std::span<const LayerScores> layers, int64_t top_k);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_NEURON_ATTRIBUTION_H_
