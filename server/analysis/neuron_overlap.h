// How much two sets of neurons have in common, beside what chance gives: of sets of n1 and n2 that
// are drawn at random among the N neurons of a block, the intersection is hypergeometric, with mean
// n1 n2 / N. Over several blocks everything but the Jaccard index adds up.
#ifndef VALUESCOPE_ANALYSIS_NEURON_OVERLAP_H_
#define VALUESCOPE_ANALYSIS_NEURON_OVERLAP_H_

#include <cstdint>
#include <optional>
#include <span>

namespace valuescope::analysis {

struct NeuronOverlap {
  int64_t intersection = 0;
  int64_t union_size = 0;
  double expected_intersection = 0;

  void Add(const NeuronOverlap& other);
  // intersection / union, 0 .. 1; absent where both sets are empty.
  std::optional<double> Jaccard() const;
};

// Of two sets of one block with `num_neurons` > 0; indices ascend and are distinct.
NeuronOverlap OverlapOf(std::span<const int64_t> first, std::span<const int64_t> second,
                        int64_t num_neurons);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_NEURON_OVERLAP_H_
