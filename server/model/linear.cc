#include "model/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>

#include "base/check.h"
#include "model/kernels.h"

namespace valuescope::model {
namespace {

class PlainLinear : public Linear {
 public:
  explicit PlainLinear(at::Tensor weight)
      : Linear(weight.size(1), weight.size(0)), weight_(std::move(weight)) {}
  at::Tensor Apply(const at::Tensor& x) const override { return at::linear(x, weight_); }

 private:
  at::Tensor weight_;  // [out, in]
};

// Rows of every product are padded to a multiple of this where MKL's result depends on the row
// count.
constexpr int64_t kFixedRows = 16;

class PackedLinear : public Linear {
 public:
  explicit PackedLinear(const at::Tensor& weight)
      : Linear(weight.size(1), weight.size(0)), packed_(PackWeight(weight)) {
    rows_are_independent_ = RowsAreIndependent();
  }

  at::Tensor Apply(const at::Tensor& x) const override {
    if (rows_are_independent_) return PackedProduct(x, packed_, out_features());
    at::Tensor result = at::empty({x.size(0), out_features()}, x.options());
    for (int64_t row = 0; row < x.size(0); row += kFixedRows) {
      const int64_t rows = std::min(kFixedRows, x.size(0) - row);
      at::Tensor block = at::zeros({kFixedRows, in_features()}, x.options());
      block.narrow(0, 0, rows).copy_(x.narrow(0, row, rows));
      result.narrow(0, row, rows)
          .copy_(PackedProduct(block, packed_, out_features()).narrow(0, 0, rows));
    }
    return result;
  }

 private:
  // Whether a row's bits do not depend on how many rows are beside it, tried once for this shape
  // and machine. Which kernel MKL picks depends on shapes only, so random numbers stand for all.
  bool RowsAreIndependent() const {
    const at::Tensor x = at::randn({64, in_features()});
    const at::Tensor all = PackedProduct(x, packed_, out_features());
    for (const int64_t rows : {1, 2, 5, 16, 33}) {
      const at::Tensor some =
          PackedProduct(x.narrow(0, 0, rows).contiguous(), packed_, out_features());
      if (!some.equal(all.narrow(0, 0, rows))) return false;
    }
    return true;
  }

  at::Tensor packed_;
  bool rows_are_independent_ = false;
};

}  // namespace

std::unique_ptr<Linear> Linear::Create(const at::Tensor& weight) {
  VS_CHECK(weight.dim() == 2);
  if (weight.is_cpu() && weight.scalar_type() == at::kFloat) {
    return std::make_unique<PackedLinear>(weight.contiguous());
  }
  return std::make_unique<PlainLinear>(weight.contiguous());
}

}  // namespace valuescope::model
