// A ranking of neurons as requests give it: one by one, or the columns of a stored set.
#ifndef VALUESCOPE_KINDS_NEURON_RANKING_H_
#define VALUESCOPE_KINDS_NEURON_RANKING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/matched_neurons.h"
#include "engine/served_model.h"
#include "kinds/response_work.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {

// Best first, at least one; a neuron's block is the place of its layer in `layers`, which ascend.
// INVALID_ARGUMENT naming "neurons[i]...", "neuron_set", "class" or "signed_scores"; NOT_FOUND;
// FAILED_PRECONDITION (reason WRONG_MODEL); the errors of CallContext::Hold. A set is added to
// `used`.
absl::StatusOr<std::vector<analysis::PlacedNeuron>> RankingOf(const v1::TestNeuronsRequest& request,
                                                              std::span<const int> layers,
                                                              const engine::ServedModel& model,
                                                              const rpc::CallContext& context,
                                                              const Sources& sources,
                                                              services::UsedResources& used);

// The sizes that are tested of a ranking of `num_ranked`: those asked for, or 1, 2, 4, ... and all.
// INVALID_ARGUMENT naming "sizes".
absl::StatusOr<std::vector<int32_t>> SizesOf(const v1::TestNeuronsRequest& request,
                                             int64_t num_ranked);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_NEURON_RANKING_H_
