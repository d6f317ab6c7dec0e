// What a request for attribution may ask, as far as neither vectors nor responses are needed to
// tell.
#ifndef VALUESCOPE_KINDS_ATTRIBUTION_OPTIONS_H_
#define VALUESCOPE_KINDS_ATTRIBUTION_OPTIONS_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {

// INVALID_ARGUMENT naming a field.
absl::Status CheckAttributionOptions(const v1::AttributeNeuronsRequest& request);

// That each candidate is a neuron of one of `layers`, which ascend, and there once:
// INVALID_ARGUMENT naming "causal_ablation.candidates[i]...". A layer has `intermediate` neurons.
absl::Status CheckCandidates(const v1::CausalAblation& how, std::span<const int> layers,
                             int64_t intermediate);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_ATTRIBUTION_OPTIONS_H_
