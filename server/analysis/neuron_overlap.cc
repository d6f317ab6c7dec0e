#include "analysis/neuron_overlap.h"

#include "base/check.h"

namespace valuescope::analysis {

void NeuronOverlap::Add(const NeuronOverlap& other) {
  intersection += other.intersection;
  union_size += other.union_size;
  expected_intersection += other.expected_intersection;
}

std::optional<double> NeuronOverlap::Jaccard() const {
  if (union_size == 0) return std::nullopt;
  return static_cast<double>(intersection) / static_cast<double>(union_size);
}

NeuronOverlap OverlapOf(std::span<const int64_t> first, std::span<const int64_t> second,
                        int64_t num_neurons) {
  VS_CHECK(num_neurons > 0);
  NeuronOverlap overlap;
  for (size_t i = 0, j = 0; i < first.size() && j < second.size();) {
    if (first[i] == second[j]) ++overlap.intersection;
    const bool first_is_behind = first[i] <= second[j], second_is_behind = second[j] <= first[i];
    i += first_is_behind;
    j += second_is_behind;
  }
  const auto n1 = static_cast<int64_t>(first.size()), n2 = static_cast<int64_t>(second.size());
  overlap.union_size = n1 + n2 - overlap.intersection;
  overlap.expected_intersection =
      static_cast<double>(n1) * static_cast<double>(n2) / static_cast<double>(num_neurons);
  return overlap;
}

}  // namespace valuescope::analysis
