// The methods that say what neurons do to a scalar L of each expressing response: attribution
// patching and integrated gradients, causal ablation, and log-probability increase, as the engine
// answers for one sequence (engine/neuron_request.h), the mean over these responses. Patching
// compares with activations of 0, or with their mean over the non-expressing responses:
//   mean over responses of sum_t (a_ti - base_i) dL / da_ti
//     = mean sum_t a_ti dL / da_ti - base_i mean sum_t dL / da_ti,
// so that a response is looked at once and two sums a neuron are all that is kept. Integrated
// gradients are the same with base 0 and dL / da averaged along the path from 0.
#ifndef VALUESCOPE_STUDIES_TARGET_ATTRIBUTION_H_
#define VALUESCOPE_STUDIES_TARGET_ATTRIBUTION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/neuron_request.h"
#include "model/architecture.h"
#include "studies/attribution_method.h"

namespace valuescope::studies {

struct TargetPlan {
  std::vector<int> layers;  // ascending
  engine::TokenSelection tokens;
  engine::NeuronTarget target;
  std::vector<int32_t> continuation;  // in the place of every response; empty: the response itself
  engine::NeuronQuestion question;
  bool mean_baseline = false;  // of gradients without a path
};

std::unique_ptr<AttributionMethod> TargetAttributionOf(TargetPlan plan);

// What the engine would say of the responses if they ran, before any does: INVALID_ARGUMENT naming
// a field of "responses[i]", or the request's "layers", "tokens", "target.tokens"....
absl::Status CheckTargetPlan(const engine::Engine& engine,
                             std::span<const LabelledResponse> responses, const TargetPlan& plan,
                             const Cancellation& cancellation);

// What one response costs.
struct TargetCost {
  int64_t passes = 1;   // nodes of paths, or neurons that are looked at one by one, at most
  double forwards = 1;  // forward passes of the response that take about as long
};
// `tokens` are those of a response, about. A backward pass counts as two forward ones.
TargetCost CostOf(const TargetPlan& plan, const model::Architecture& architecture, double tokens);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_TARGET_ATTRIBUTION_H_
