// Loops over one row of logits, as wide as the vocabulary: one is run for every token that is
// sampled or scored, or once for every neuron at every token, so they are vectorised.
#ifndef VALUESCOPE_ENGINE_LOGIT_ROW_H_
#define VALUESCOPE_ENGINE_LOGIT_ROW_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace valuescope::engine {

// FAILED_PRECONDITION, reason LOGITS_NOT_FINITE: steering that is strong enough drives activations
// beyond what numbers can hold, and NaN would be sampled or read like anything else.
absl::Status CheckFinite(std::span<const float> logits);
// What CheckFinite says of a row that is not.
absl::Status LogitsNotFinite();

// The largest of finite logits, the first where several are; `logits` is not empty.
int32_t IndexOfLargest(std::span<const float> logits);

// exp((logit - largest) / temperature) of each, 0 below 1e-37; to 1e-5 of itself, into `weights`,
// of which it is given back. largest is the largest logit, temperature > 0.
std::span<const float> WeightsOf(std::span<const float> logits, float largest, float temperature,
                                 std::vector<float>& weights);

double SumOf(std::span<const float> weights);

// SumOf WeightsOf at temperature 1, to the bit, without keeping the weights.
double SumOfWeights(std::span<const float> logits, float largest);

// log sum exp(logits + factor * more) of finite ones, as many of either, at least one.
double LogSumExp(std::span<const float> logits, std::span<const float> more, float factor);

// The first index at which the running sum of `weights` is above `threshold`, which is below their
// SumOf up to rounding; never one without weight.
size_t IndexOfSum(std::span<const float> weights, double threshold);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_LOGIT_ROW_H_
