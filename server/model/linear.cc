#include "model/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
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

// Which products give a row the same bits whatever rows are beside it and wherever it stands among
// them. A library picks its kernel by the number of rows, and kernels may round differently.
struct SafeRows {
  // Every product of at least so many rows does; 0: not known of any number.
  int64_t fewest = 0;
  // Where `fewest` is 0: products of exactly so many rows do. At worst a row alone.
  int64_t block = 1;
};

// Row counts that are tried: all small ones, where kernels change, then around the usual tiles.
constexpr int64_t kManyRows = 257;
constexpr int64_t kMostTriedAlways = 34;
constexpr int64_t kFixedBlock = 16;
// Products of more elements are tried with fewer rows, to bound memory and time.
constexpr int64_t kMostElements = 4 << 20;

// The fewest rows from which on `independent` holds, of those that are tried; 0 if none.
int64_t FewestIndependent(int64_t most, const std::function<bool(int64_t)>& independent) {
  for (const int64_t rows : {256, 255, 129, 128, 127, 96, 67, 65, 64, 63, 49, 48, 47}) {
    if (rows <= most && !independent(rows)) return 0;
  }
  int64_t fewest = kMostTriedAlways + 1;
  while (fewest > 1 && independent(fewest - 1)) --fewest;
  return fewest <= kMostTriedAlways ? fewest : 0;
}

// Tried once a shape, type and number of threads: which kernel the library picks and how it splits
// the work depend on these only, so random numbers stand for all.
SafeRows Try(const at::Tensor& packed, int64_t in_features, int64_t out_features,
             c10::ScalarType dtype) {
  const int64_t most = std::clamp(kMostElements / out_features, kMostTriedAlways + 3, kManyRows);
  const at::Tensor x = at::randn({most, in_features}).to(dtype);
  const at::Tensor all = PackedProduct(x, packed, {});
  const auto same = [&](int64_t first, int64_t rows) {
    return PackedProduct(x.narrow(0, first, rows), packed, {}).equal(all.narrow(0, first, rows));
  };
  const auto independent = [&](int64_t rows) {
    return same(0, rows) && (rows + 3 > most || same(3, rows));
  };
  if (const int64_t fewest = FewestIndependent(most, independent); fewest > 0) {
    return {.fewest = fewest};
  }
  // One number of rows has to do for all, if it does not matter where a row stands.
  const at::Tensor block = x.narrow(0, 0, kFixedBlock);
  const at::Tensor rolled = PackedProduct(block.roll(5, 0), packed, {}).roll(-5, 0);
  return {.block = rolled.equal(PackedProduct(block, packed, {})) ? kFixedBlock : 1};
}

SafeRows TryOnce(const at::Tensor& packed, int64_t in_features, int64_t out_features,
                 c10::ScalarType dtype) {
  using Case = std::tuple<int64_t, int64_t, c10::ScalarType, int>;
  static std::mutex mutex;
  static std::map<Case, SafeRows> known;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [entry, fresh] =
      known.try_emplace(Case(in_features, out_features, dtype, at::get_num_threads()), SafeRows());
  if (fresh) entry->second = Try(packed, in_features, out_features, dtype);
  return entry->second;
}

class PackedLinear : public Linear {
 public:
  PackedLinear(const at::Tensor& weight, at::Tensor bias, std::function<at::Tensor()> plain)
      : Linear(weight.size(1), weight.size(0)),
        packed_(PackWeight(weight)),
        bias_(std::move(bias)),
        plain_(std::move(plain)) {
    Safe(weight.scalar_type());  // most models run with the threads they were loaded with
  }

  at::Tensor Apply(const at::Tensor& x) const override {
    if (TracksGradients(x)) return Plain(x);
    const SafeRows safe = Safe(x.scalar_type());
    const int64_t rows = x.size(0);
    if (safe.fewest == 0) return InBlocks(x, safe.block);
    if (rows >= safe.fewest) return PackedProduct(x, packed_, bias_);
    return PackedProduct(Padded(x, safe.fewest), packed_, bias_).narrow(0, 0, rows);
  }

 private:
  at::Tensor Plain(const at::Tensor& x) const {
    std::call_once(plain_made_, [this] {
      const c10::NoGradGuard no_gradients;
      plain_weight_ = plain_();
    });
    return at::linear(x, plain_weight_, bias_.defined() ? std::optional(bias_) : std::nullopt);
  }

  SafeRows Safe(c10::ScalarType dtype) const {
    return TryOnce(packed_, in_features(), out_features(), dtype);
  }

  static at::Tensor Padded(const at::Tensor& x, int64_t rows) {
    at::Tensor padded = at::zeros({rows, x.size(1)}, x.options());
    padded.narrow(0, 0, x.size(0)).copy_(x);
    return padded;
  }

  at::Tensor InBlocks(const at::Tensor& x, int64_t block) const {
    at::Tensor result = at::empty({x.size(0), out_features()}, x.options());
    for (int64_t first = 0; first < x.size(0); first += block) {
      const int64_t rows = std::min(block, x.size(0) - first);
      const at::Tensor part = x.narrow(0, first, rows);
      const at::Tensor whole = rows == block ? part : Padded(part, block);
      result.narrow(0, first, rows).copy_(PackedProduct(whole, packed_, bias_).narrow(0, 0, rows));
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
  if (CanPack(plain)) {
    return std::make_unique<PackedLinear>(plain, bias, std::move(weight));
  }
  return std::make_unique<PlainLinear>(plain, bias);
}

}  // namespace valuescope::model
