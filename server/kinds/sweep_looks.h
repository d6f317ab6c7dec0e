// How active each neuron is in the baseline's responses and what it writes, which random sets of
// neurons are matched by as tests of neurons match theirs (studies/neuron_measures.h).
#ifndef VALUESCOPE_KINDS_SWEEP_LOOKS_H_
#define VALUESCOPE_KINDS_SWEEP_LOOKS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/matched_neurons.h"
#include "base/cancellation.h"
#include "engine/served_model.h"
#include "jobs/work.h"
#include "kinds/response_work.h"
#include "kinds/saved_work.pb.h"

namespace valuescope::kinds {

// Looks at `units` of `responses`, which are those of all units of `inputs`, in the sweep's layers,
// and adds what is found to `looks`; with the last of them also the norms. FAILED_PRECONDITION
// (EMPTY_RESPONSES) where not one response has a token.
absl::Status AddSweepLooks(const ResponseInputs& inputs, const SavedSweep& sweep,
                           const SavedResponses& responses, const jobs::UnitRange& units,
                           const Cancellation& cancellation, std::string& looks);

// DATA_LOSS for bytes that are no looks at all responses.
absl::StatusOr<analysis::NeuronMatching> MatchingOf(const SavedSweep& sweep,
                                                    absl::string_view looks, int64_t intermediate);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_LOOKS_H_
