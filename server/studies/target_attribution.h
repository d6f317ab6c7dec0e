// Attribution patching and integrated gradients: the neurons' part in a scalar L of each expressing
// response, by gradients (engine/gradient_request.h), the mean over these responses. Patching
// compares with activations of 0, or with their mean over the non-expressing responses:
//   mean over responses of sum_t (a_ti - base_i) dL / da_ti
//     = mean sum_t a_ti dL / da_ti - base_i mean sum_t dL / da_ti,
// so that a response is looked at once and two sums a neuron are all that is kept. Integrated
// gradients are the same with base 0 and dL / da averaged along the path from 0.
#ifndef VALUESCOPE_STUDIES_GRADIENT_ATTRIBUTION_H_
#define VALUESCOPE_STUDIES_GRADIENT_ATTRIBUTION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/gradient_request.h"
#include "studies/attribution_method.h"

namespace valuescope::studies {

struct GradientPlan {
  std::vector<int> layers;  // ascending
  engine::TokenSelection tokens;
  engine::GradientTarget target;
  std::vector<int32_t> continuation;  // in the place of every response; empty: the response itself
  bool mean_baseline = false;         // without a path
  std::optional<engine::PathNodes> path;  // integrated gradients
};

std::unique_ptr<AttributionMethod> GradientAttributionOf(GradientPlan plan);

// What the engine would say of the responses if they ran, before any does: INVALID_ARGUMENT naming
// a field of "responses[i]", or the request's "layers", "tokens", "target.tokens"....
absl::Status CheckGradients(const engine::Engine& engine,
                            std::span<const LabelledResponse> responses, const GradientPlan& plan,
                            const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_GRADIENT_ATTRIBUTION_H_
