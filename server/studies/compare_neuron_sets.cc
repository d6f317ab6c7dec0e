#include "studies/compare_neuron_sets.h"

#include <utility>

#include "analysis/neuron_overlap.h"
#include "base/status_macros.h"

namespace valuescope::studies {
namespace {

std::span<const int64_t> NeuronsAt(const NeuronsByLayer& set, int layer) {
  const auto place = set.find(layer);
  if (place == set.end()) return {};
  return place->second;
}

v1::NeuronSetOverlap OverlapToProto(size_t first, size_t second,
                                    const analysis::NeuronOverlap& overlap) {
  v1::NeuronSetOverlap proto;
  proto.set_first(static_cast<int32_t>(first));
  proto.set_second(static_cast<int32_t>(second));
  proto.set_intersection(overlap.intersection);
  proto.set_union_size(overlap.union_size);
  if (const auto jaccard = overlap.Jaccard()) proto.set_jaccard(*jaccard);
  proto.set_expected_intersection(overlap.expected_intersection);
  return proto;
}

}  // namespace

absl::StatusOr<std::vector<v1::NeuronSetOverlap>> CompareNeuronSets(
    std::span<const NeuronsByLayer> sets, const std::map<int, int64_t>& neurons_of_layer,
    const Cancellation& cancellation) {
  std::vector<v1::NeuronSetOverlap> overlaps;
  for (size_t i = 0; i < sets.size(); ++i) {
    for (size_t j = i + 1; j < sets.size(); ++j) {
      VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
      analysis::NeuronOverlap all;
      std::vector<v1::NeuronSetOverlap> by_layer;
      for (const auto& [layer, num_neurons] : neurons_of_layer) {
        const analysis::NeuronOverlap overlap =
            analysis::OverlapOf(NeuronsAt(sets[i], layer), NeuronsAt(sets[j], layer), num_neurons);
        all.Add(overlap);
        by_layer.push_back(OverlapToProto(i, j, overlap));
        by_layer.back().set_layer(layer);
      }
      overlaps.push_back(OverlapToProto(i, j, all));
      overlaps.insert(overlaps.end(), by_layer.begin(), by_layer.end());
    }
  }
  return overlaps;
}

}  // namespace valuescope::studies
