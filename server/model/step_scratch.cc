#include "model/step_scratch.h"

#include <algorithm>

#include "model/device_types.h"
#include "model/kernels.h"

namespace valuescope::model {
namespace {

// Products may be padded to so many rows (linear.h).
constexpr int64_t kFewestRows = 64;

}  // namespace

int64_t StepScratchBytes(const Architecture& a, c10::Device device, DType dtype, int64_t tokens) {
  return StepScratchBytes(a, device, dtype, tokens, /*num_logits=*/tokens);
}

int64_t StepScratchBytes(const Architecture& a, c10::Device device, DType dtype, int64_t tokens,
                         int64_t num_logits) {
  // The stream, what its norm gives and what a part writes. Operators that compute in float32 hold
  // a copy of one of them.
  const int64_t streams = 4 * a.hidden;
  const int64_t heads = a.num_heads * a.head_dim;
  const int64_t attention = 2 * (heads + 2 * a.num_kv_heads * a.head_dim) + heads;
  // Gate and up, their product and its padded copy.
  const int64_t mlp = 4 * a.intermediate;
  const int64_t activations = (streams + std::max(attention, mlp)) * SizeOf(DType::kFloat32);
  // In float32, and what they are made from: a half type's, once whole and once in blocks.
  const int64_t logits = 2 * a.vocabulary * SizeOf(DType::kFloat32);
  const bool widens =
      device.is_cpu() && dtype != DType::kFloat32 && !CanPack(device, ScalarTypeOf(dtype));
  const int64_t widest = std::max(a.vocabulary, 2 * a.intermediate) * a.hidden;
  const int64_t widened = widens ? 2 * widest * SizeOf(DType::kFloat32) : 0;
  const int64_t rows = std::max(tokens, kFewestRows);
  const int64_t logit_rows = std::max(num_logits, kFewestRows);
  return widened +
         std::max(rows * activations, rows * streams * SizeOf(dtype) + logit_rows * logits);
}

}  // namespace valuescope::model
