// Gradients of what a step computes. A step with a tape computes, to the bit, what every step
// computes, and records on the way what its derivative needs: from the first wire of the tape on,
// autograd's graph has a node an operator (operators.h), whose derivative is that of the operator's
// plain counterpart at the same input. Weights are constants.
#ifndef VALUESCOPE_MODEL_GRADIENTS_H_
#define VALUESCOPE_MODEL_GRADIENTS_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <vector>

#include "base/memory_ledger.h"
#include "model/architecture.h"
#include "model/linear.h"
#include "model/site.h"

namespace valuescope::model {

// The wires that gradients run between, both normalised: of what is made of `to` by `from`.
struct GradientPath {
  Wire from = {.site = Site::kEmbedding};
  Wire to = {.site = Site::kLogits};
};

// Whether all of `part` is on `path`.
bool Covers(const GradientPath& path, const GradientPath& part, const Architecture& architecture);

// A packed weight W gives X W^T and no dY W. So these are the transposed weights of the projections
// on a path, packed in their turn, made for one model (Transformer::MakeGradientWeights) before a
// step wants them and shared by all of its steps and their graphs.
struct GradientWeights {
  GradientPath path;
  // Of what is not the model's own; null where nobody counts.
  std::shared_ptr<const MemoryLedger::Lease> lease;
  // dY [n, out] -> dY W [n, in], of the model's type; of a weight that the model keeps plain it
  // shares that.
  std::map<const Projection*, std::unique_ptr<const Linear>> transposed;

  // d L / d x where `gradient` [n, out] is d L / d x W^T, of a projection on the path: [n, in].
  at::Tensor Backward(const Projection& projection, const at::Tensor& gradient) const;
};

// Asks a step to record. What the step read (its batch, program and cache) stays as the step left
// it until the gradients are taken, which read it again.
struct GradientTape {
  // Of the step's model, for a path that begins at one of `wires` or before all of them and ends at
  // or behind what is differentiated; never null.
  std::shared_ptr<const GradientWeights> weights;
  // WireIndex of what is differentiated by or with, but for LOGITS, which the step returns. Nothing
  // before the first of them in the forward pass is recorded.
  std::vector<int> wires;
  std::vector<at::Tensor> values;  // set by the step, one a wire: [num_tokens, width]
  // The block whose norm behind the MLP (post_norms) divides by its clean factor, taken as a
  // constant: a scale-invariant norm would hide what its own block's neurons do. -1: none.
  int held_post_norm = -1;
};

// d scalar / d each of `inputs`, which belong to the graph that made `scalar` (a tensor of one
// element). The graph is gone after it unless `keep_graph`.
std::vector<at::Tensor> GradientsOf(const at::Tensor& scalar, const std::vector<at::Tensor>& inputs,
                                    bool keep_graph = false);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_GRADIENTS_H_
