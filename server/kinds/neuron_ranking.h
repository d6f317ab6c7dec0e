// Rankings of neurons as requests give them: one by one, or the columns of a stored set.
#ifndef VALUESCOPE_KINDS_NEURON_RANKING_H_
#define VALUESCOPE_KINDS_NEURON_RANKING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {

// The request's rankings with the sizes that are tested of each, those asked for, or 1, 2, 4, ...
// and all, and its neurons as far as they are tested: one without a label, or several with theirs.
// A neuron's block is the place of its layer in `layers`, which ascend. INVALID_ARGUMENT naming
// "neurons[i]...", "neuron_set", "class", "signed_scores", "rankings[i]..." or "sizes"; NOT_FOUND;
// FAILED_PRECONDITION (reason WRONG_MODEL); the errors of CallContext::Hold. Sets are added to
// `used`.
absl::StatusOr<std::vector<SavedRanking>> RankingsOf(const v1::TestNeuronsRequest& request,
                                                     std::span<const int> layers,
                                                     const engine::ServedModel& model,
                                                     const rpc::CallContext& context,
                                                     const Sources& sources,
                                                     services::UsedResources& used);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_NEURON_RANKING_H_
