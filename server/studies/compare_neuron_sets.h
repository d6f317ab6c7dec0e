// Neuron sets of one model beside one another: every pair over all layers together and layer by
// layer. The mathematics is analysis/neuron_overlap.h's; here are sets and layers put together.
#ifndef VALUESCOPE_STUDIES_COMPARE_NEURON_SETS_H_
#define VALUESCOPE_STUDIES_COMPARE_NEURON_SETS_H_

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "studies/stored_neuron_set.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::studies {

// Every pair first < second, by their places in `sets`: the sum over `neurons_of_layer`, which says
// how many neurons each layer of any of the sets has, then these layers. A set has nothing in a
// layer that it does not name. CANCELLED.
absl::StatusOr<std::vector<v1::NeuronSetOverlap>> CompareNeuronSets(
    std::span<const NeuronsByLayer> sets, const std::map<int, int64_t>& neurons_of_layer,
    const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_COMPARE_NEURON_SETS_H_
