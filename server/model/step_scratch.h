// What a step of the forward pass takes for its activations while it runs, beside weights and
// cache: known before anything runs, so that it can be counted on.
#ifndef VALUESCOPE_MODEL_STEP_SCRATCH_H_
#define VALUESCOPE_MODEL_STEP_SCRATCH_H_

#include <c10/core/Device.h>

#include <cstdint>

#include "base/dtype.h"
#include "model/architecture.h"

namespace valuescope::model {

// Bytes of a step of `tokens` tokens at most, without gradients: the activations that are there at
// once and the logits of all of its tokens; and on a CPU, where weights of a half type are not
// packed, the largest of them as its product widens it.
int64_t StepScratchBytes(const Architecture& architecture, c10::Device device, DType dtype,
                         int64_t tokens);
// The same with the logits of so many of its tokens.
int64_t StepScratchBytes(const Architecture& architecture, c10::Device device, DType dtype,
                         int64_t tokens, int64_t num_logits);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_STEP_SCRATCH_H_
