// y = x W^T + b for a projection's logical weight W [out, in], whatever the storage behind it. On a
// CPU in float32, and in bfloat16 where the processor has products for it, the weight is packed
// once, for kernels that are faster than a plain product at nearly every row count; a row then gets
// the same bits whatever rows are beside it. Elsewhere it is the plain product, in blocks of a
// fixed number of rows where the same was asked for. A gate is two of them at once.
#ifndef VALUESCOPE_MODEL_LINEAR_H_
#define VALUESCOPE_MODEL_LINEAR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "model/architecture.h"

namespace valuescope::model {

// What W and b are, for those who want more of them than the product.
class Projection {
 public:
  virtual ~Projection() = default;

  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }  // rows of W
  // [out], or undefined.
  const at::Tensor& bias() const { return bias_; }
  // W [out, in] where it is kept as it is; undefined where only its packed form is.
  const at::Tensor& plain() const { return plain_; }

 protected:
  Projection(int64_t in_features, int64_t out_features, at::Tensor bias, at::Tensor plain)
      : in_features_(in_features),
        out_features_(out_features),
        bias_(std::move(bias)),
        plain_(std::move(plain)) {}

 private:
  const int64_t in_features_, out_features_;
  const at::Tensor bias_, plain_;
};

class Linear : public Projection {
 public:
  // Whether a row's bits may depend on the rows beside it. A packed product's never do.
  enum class Rows : uint8_t { kFast, kIndependent };

  // `weight` [out, in] is copied; `bias` [out] is kept as it is and may be undefined.
  static std::unique_ptr<Linear> Create(const at::Tensor& weight, const at::Tensor& bias = {},
                                        Rows rows = Rows::kFast);
  // The same without a bias for a weight that somebody else keeps as well, as a tied embedding is:
  // what is kept beside a packed form is the same memory.
  static std::unique_ptr<Linear> Share(const at::Tensor& weight, Rows rows = Rows::kFast);

  // Multiplies by the transposed `weight`, which somebody else keeps as it is: x [n, out] -> x W
  // [n, in].
  static std::unique_ptr<Linear> ShareTransposed(const at::Tensor& weight);

  // x [num_tokens, in] contiguous -> [num_tokens, out]. Thread-safe.
  virtual at::Tensor Apply(const at::Tensor& x) const = 0;

 protected:
  using Projection::Projection;
};

// What an MLP's neurons are: activation(x Wg^T + bg) * (x Wu^T + bu). Where a weight is packed for
// our own product and there is no bias, that is one product, whose outputs are gated while they are
// in a thread's cache.
class Gate : public Projection {
 public:
  // `weight` [2 * width, in] and `bias` [2 * width] or undefined have the gate's part first; both
  // as Linear::Create has them.
  static std::unique_ptr<Gate> Create(const at::Tensor& weight, const at::Tensor& bias,
                                      Activation activation,
                                      Linear::Rows rows = Linear::Rows::kFast);

  // x [num_tokens, in] contiguous -> [num_tokens, width]. Thread-safe.
  virtual at::Tensor Apply(const at::Tensor& x) const = 0;
  // x Wg^T + bg alone, [num_tokens, width].
  virtual at::Tensor Gates(const at::Tensor& x) const = 0;
  // Both, of which GateMultiply makes what Apply returns to the bit: [num_tokens, 2 * width].
  virtual at::Tensor GatesAndUps(const at::Tensor& x) const = 0;

  Activation activation() const { return activation_; }

 protected:
  Gate(int64_t in_features, int64_t out_features, at::Tensor bias, at::Tensor plain,
       Activation activation)
      : Projection(in_features, out_features, std::move(bias), std::move(plain)),
        activation_(activation) {}

 private:
  const Activation activation_;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_LINEAR_H_
