// What the sequences of a step make of its logits: each draws its next token from its rows or
// scores what was given behind them, and a row that is no numbers ends its sequence alone.
#ifndef VALUESCOPE_ENGINE_STEP_LOGITS_H_
#define VALUESCOPE_ENGINE_STEP_LOGITS_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/status/status.h"
#include "engine/device_queue.h"
#include "engine/step_assembly.h"

namespace valuescope::engine {

// `logits` [num_logits, vocabulary] float32 on the device: the rows that the parts want, in their
// order. The errors of Sequence::ReadLogits, one a part.
std::vector<absl::Status> ReadStepLogits(const std::vector<StepPart>& parts,
                                         const at::Tensor& logits, const DeviceQueue& queue);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_STEP_LOGITS_H_
