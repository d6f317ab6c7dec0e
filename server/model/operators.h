// The operators that a step runs with, chosen once a step: those that serve, or those that leave
// what gradients need as well. The forward pass (transformer.cc) is written once, over this
// interface, and does not know which it has.
#ifndef VALUESCOPE_MODEL_OPERATORS_H_
#define VALUESCOPE_MODEL_OPERATORS_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "model/gradients.h"
#include "model/kernels.h"
#include "model/linear.h"
#include "model/step.h"

namespace valuescope::model {

// Shapes and meanings are those of linear.h, and of kernels.h under the same names. What is changed
// in place there may become a new tensor here.
class Operators {
 public:
  virtual ~Operators() = default;

  virtual at::Tensor Apply(const Linear& linear, const at::Tensor& x) const = 0;
  virtual at::Tensor Apply(const Gate& gate, const at::Tensor& x) const = 0;

  virtual at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight,
                             double epsilon) const = 0;
  // The norm of what the MLP of block `layer` writes.
  virtual at::Tensor MlpPostNorm(int layer, const at::Tensor& x, const at::Tensor& weight,
                                 double epsilon) const = 0;
  virtual void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight,
                         const at::Tensor& key_weight, double epsilon,
                         const HeadShape& heads) const = 0;
  virtual void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                              const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                              const HeadShape& heads) const = 0;
  virtual at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys,
                               const at::Tensor& values, const StepBatch& batch,
                               const std::vector<at::Tensor>& plan, const HeadShape& heads,
                               const AttentionScores& scores) const = 0;
  virtual void SoftCap(at::Tensor& x, double cap) const = 0;

  // x becomes x + written. Both [num_tokens, width].
  virtual void Add(at::Tensor& x, const at::Tensor& written) const = 0;

  virtual void Edit(at::Tensor& x, const Stage& stage, const at::Tensor& table_rows) const = 0;
  // x is what wire `wire` (WireIndex) carries, behind its edits.
  virtual void Pass(int wire, at::Tensor& x) const = 0;
  virtual void Tap(const at::Tensor& x, const TapStage& tap) const = 0;
};

// Those of kernels.h and linear.h and nothing beside them.
const Operators& ServingOperators();

// Those that fill `tape`, for one step, which the tape outlives.
std::unique_ptr<Operators> TapedOperators(GradientTape& tape);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_OPERATORS_H_
