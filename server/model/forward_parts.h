// Parts of the forward pass for those who change what runs between them: without edits and taps,
// and to the bit what a whole pass computes of the same rows where its results do not depend on
// their company (LoadOptions::batch_invariant). Rows and results are of the model's type and device
// unless it says otherwise, and contiguous. With a tape, which names no wires, results belong to
// the graph of what went in; without one nothing of autograd runs.
#ifndef VALUESCOPE_MODEL_FORWARD_PARTS_H_
#define VALUESCOPE_MODEL_FORWARD_PARTS_H_

#include <ATen/core/Tensor.h>

#include <utility>

#include "model/gradients.h"
#include "model/kv_cache.h"
#include "model/step.h"

namespace valuescope::model {

class ForwardParts {
 public:
  virtual ~ForwardParts() = default;

  // What block `last` gives for x [num_tokens, hidden], which enters block `first` and is changed
  // where there is no tape; x itself where last is first - 1. Keys and values of the batch's tokens
  // go to these layers of `cache`. The batch's token_ids and logit_tokens are not read.
  virtual at::Tensor RunBlocks(int first, int last, at::Tensor x, const StepBatch& batch,
                               KvCache& cache, GradientTape* tape) const = 0;
  at::Tensor RunBlocks(int first, int last, at::Tensor x, const StepBatch& batch,
                       KvCache& cache) const {
    return RunBlocks(first, last, std::move(x), batch, cache, nullptr);
  }

  // What down_proj of block `layer` makes of neurons [n, intermediate], its bias included:
  // [n, hidden].
  virtual at::Tensor DownProjected(int layer, const at::Tensor& neurons) const = 0;
  // What each of `neurons` [n] int64 of block `layer` is in that per unit of activation:
  // [n, hidden] float32.
  virtual at::Tensor DownColumns(int layer, const at::Tensor& neurons) const = 0;
  // MLP_OUTPUT of block `layer` [n, hidden] from what its down_proj gave [n, hidden]: the same, or
  // its norm where one is behind the MLP, with `factor` [n, 1] float32 in place of its own where
  // that is defined.
  virtual at::Tensor MlpOutput(int layer, const at::Tensor& projected,
                               const at::Tensor& factor) const = 0;

  // Logits of x [n, hidden], what the last block gives: [n, vocabulary] float32.
  virtual at::Tensor Logits(const at::Tensor& x, GradientTape* tape) const = 0;
  at::Tensor Logits(const at::Tensor& x) const { return Logits(x, nullptr); }
  // The same before any soft cap and with 1 for the final norm's factor, so that they are linear in
  // x [n, hidden] of any type: [n, vocabulary] float32.
  virtual at::Tensor UnscaledLogits(const at::Tensor& x) const = 0;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_FORWARD_PARTS_H_
