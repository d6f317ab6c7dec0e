// y = x W^T + b for a projection's logical weight W [out, in], whatever the storage behind it. On a
// CPU in float32, and in bfloat16 where the processor has products for it, the weight is packed
// once, for kernels that are faster than a plain product at nearly every row count; a row then gets
// the same bits whatever rows are beside it. Elsewhere it is the plain product, in blocks of a
// fixed number of rows where the same was asked for. A gate is two of them at once.
#ifndef VALUESCOPE_MODEL_LINEAR_H_
#define VALUESCOPE_MODEL_LINEAR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "model/architecture.h"

namespace valuescope::model {

class Linear {
 public:
  // Whether a row's bits may depend on the rows beside it. A packed product's never do.
  enum class Rows : uint8_t { kFast, kIndependent };

  // `weight` gives the weight [out, in] on its device, now and, where the storage is another, when
  // gradients first pass through: only then are there two copies. It may show a file: what is kept
  // is copied. `bias` [out] is kept as it is and may be undefined.
  static std::unique_ptr<Linear> Create(std::function<at::Tensor()> weight,
                                        const at::Tensor& bias = {}, Rows rows = Rows::kFast);
  // The same without a bias for a weight that somebody else keeps as well, as a tied embedding is:
  // where it is not packed, both have the same memory.
  static std::unique_ptr<Linear> Share(const at::Tensor& weight, Rows rows = Rows::kFast);
  virtual ~Linear() = default;

  // x [num_tokens, in] contiguous -> [num_tokens, out]; differentiable by x. Thread-safe.
  virtual at::Tensor Apply(const at::Tensor& x) const = 0;

  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }

 protected:
  Linear(int64_t in_features, int64_t out_features)
      : in_features_(in_features), out_features_(out_features) {}

 private:
  int64_t in_features_;
  int64_t out_features_;
};

// What an MLP's neurons are: activation(x Wg^T + bg) * (x Wu^T + bu). Where a weight is packed for
// our own product and there is no bias, that is one product, whose outputs are gated while they are
// in a thread's cache.
class Gate {
 public:
  // `weight` [2 * out, in] and `bias` [2 * out] or undefined have the gate's part first; both as
  // Linear::Create has them.
  static std::unique_ptr<Gate> Create(std::function<at::Tensor()> weight, const at::Tensor& bias,
                                      Activation activation,
                                      Linear::Rows rows = Linear::Rows::kFast);
  virtual ~Gate() = default;

  // x [num_tokens, in] contiguous -> [num_tokens, out]; differentiable by x. Thread-safe.
  virtual at::Tensor Apply(const at::Tensor& x) const = 0;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_LINEAR_H_
