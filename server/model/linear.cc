#include "model/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "model/kernels.h"

namespace valuescope::model {
namespace {

class PlainLinear : public Linear {
 public:
  PlainLinear(at::Tensor weight, at::Tensor bias)
      : Linear(weight.size(1), weight.size(0)),
        weight_(std::move(weight)),
        bias_(std::move(bias)) {}
  at::Tensor Apply(const at::Tensor& x) const override {
    return at::linear(x, weight_, bias_.defined() ? std::optional(bias_) : std::nullopt);
  }

 private:
  at::Tensor weight_;  // [out, in]
  at::Tensor bias_;    // [out], or undefined
};

// MKL picks its kernel by the number of rows, and on some machines the kernels for few rows round
// differently. A product of at least this many rows gives every row the same bits whatever rows are
// beside it and wherever it stands among them; 0 means that no such number was found. Tried once a
// shape and number of threads: which kernel MKL picks and how it splits the work depend on these
// only, so random numbers stand for all.
int64_t FewestIndependentRows(const at::Tensor& packed, int64_t in_features, int64_t out_features) {
  constexpr int64_t kMostRows = 67;
  const at::Tensor x = at::randn({kMostRows, in_features}, packed.options());
  const at::Tensor all = PackedProduct(x, packed, out_features);
  const auto independent = [&](int64_t rows) {
    for (const int64_t first : {0, 3}) {
      const at::Tensor some = PackedProduct(x.narrow(0, first, rows), packed, out_features);
      if (!some.equal(all.narrow(0, first, rows))) return false;
    }
    return true;
  };
  for (const int64_t rows : {33, 24, 20, 19, 18, 17}) {
    if (!independent(rows)) return 0;
  }
  int64_t fewest = 17;
  while (fewest > 1 && independent(fewest - 1)) --fewest;
  return fewest;
}

int64_t FewestIndependentRowsOnce(const at::Tensor& packed, int64_t in_features,
                                  int64_t out_features, int threads) {
  static std::mutex mutex;
  static std::map<std::tuple<int64_t, int64_t, int>, int64_t> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, fresh] = known.try_emplace({in_features, out_features, threads});
  if (fresh) entry->second = FewestIndependentRows(packed, in_features, out_features);
  return entry->second;
}

class PackedLinear : public Linear {
 public:
  PackedLinear(const at::Tensor& weight, at::Tensor bias, std::function<at::Tensor()> plain)
      : Linear(weight.size(1), weight.size(0)),
        packed_(PackWeight(weight)),
        bias_(std::move(bias)),
        plain_(std::move(plain)) {
    FewestRows();  // most models run with the threads they were loaded with
  }

  at::Tensor Apply(const at::Tensor& x) const override {
    if (TracksGradients(x)) return Plain(x);
    at::Tensor product = Product(x);
    return bias_.defined() ? product.add_(bias_) : product;
  }

 private:
  at::Tensor Plain(const at::Tensor& x) const {
    std::call_once(plain_made_, [this] {
      const c10::NoGradGuard no_gradients;
      plain_weight_ = plain_();
    });
    return at::linear(x, plain_weight_, bias_.defined() ? std::optional(bias_) : std::nullopt);
  }

  at::Tensor Product(const at::Tensor& x) const {
    const int64_t fewest_rows = FewestRows();
    if (fewest_rows == 0) return OneByOne(x);
    const int64_t rows = x.size(0);
    if (rows >= fewest_rows) return PackedProduct(x, packed_, out_features());
    at::Tensor padded = at::zeros({fewest_rows, in_features()}, x.options());
    padded.narrow(0, 0, rows).copy_(x);
    return PackedProduct(padded, packed_, out_features()).narrow(0, 0, rows);
  }

  int64_t FewestRows() const {
    return FewestIndependentRowsOnce(packed_, in_features(), out_features(), at::get_num_threads());
  }

  // One product a row is slow, but only very small shapes need it.
  at::Tensor OneByOne(const at::Tensor& x) const {
    at::Tensor result = at::empty({x.size(0), out_features()}, x.options());
    for (int64_t row = 0; row < x.size(0); ++row) {
      result.narrow(0, row, 1).copy_(PackedProduct(x.narrow(0, row, 1), packed_, out_features()));
    }
    return result;
  }

  at::Tensor packed_;
  at::Tensor bias_;  // [out], or undefined
  const std::function<at::Tensor()> plain_;
  mutable std::once_flag plain_made_;
  mutable at::Tensor plain_weight_;  // [out, in], once gradients asked for it
};

}  // namespace

std::unique_ptr<Linear> Linear::Create(std::function<at::Tensor()> weight, const at::Tensor& bias) {
  const at::Tensor plain = weight().contiguous();
  VS_CHECK(plain.dim() == 2);
  if (plain.is_cpu() && plain.scalar_type() == at::kFloat) {
    return std::make_unique<PackedLinear>(plain, bias, std::move(weight));
  }
  return std::make_unique<PlainLinear>(plain, bias);
}

}  // namespace valuescope::model
