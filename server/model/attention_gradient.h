// The derivative of attention, in products over whole sequences. reference::Attention, which says
// what attention is, gathers the keys of every token for itself: followed by autograd, a token
// costs as much as all tokens of its sequence do here.
#ifndef VALUESCOPE_MODEL_ATTENTION_GRADIENT_H_
#define VALUESCOPE_MODEL_ATTENTION_GRADIENT_H_

#include <ATen/core/Tensor.h>

#include "model/kernels.h"
#include "model/step.h"

namespace valuescope::model {

// d L / d `qkv` [num_tokens, (num_heads + 2 num_kv_heads) * head_dim], of its type, where
// `gradient` [num_tokens, num_heads * head_dim] is d L / d what Attention makes of it, and keys and
// values of the step's tokens are in the cache as the step left it. Those before the step are
// constants. `qkv`, `keys` and `values` as Attention has them.
at::Tensor AttentionGradient(const at::Tensor& qkv, const at::Tensor& keys,
                             const at::Tensor& values, const StepBatch& batch,
                             const HeadShape& heads, const AttentionScores& scores,
                             const at::Tensor& gradient);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_ATTENTION_GRADIENT_H_
