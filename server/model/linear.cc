#include "model/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/roll.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <bit>
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

// Products run at these numbers of rows only, padded to the next: 1, 2, 3, 4, 6, 8, 12, 16, and
// from there four to every doubling. The library makes a kernel for every number of rows that it
// meets, which takes it a millisecond and most of a megabyte each.
int64_t Bucket(int64_t rows) {
  if (rows <= 2) return rows;
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows - 1)));
  const int64_t step = std::max<int64_t>(1, below < 16 ? below / 2 : below / 4);
  return (rows + step - 1) / step * step;
}

// Which products give a row the same bits whatever rows are beside it and wherever it stands among
// them. The library's kernels may round differently.
struct SafeRows {
  // Every product of a bucket from this one on does; 0: not known of any.
  int64_t fewest = 0;
  // Where `fewest` is 0: products of exactly so many rows do. At worst a row alone.
  int64_t block = 1;
};

constexpr int64_t kMostTried = 256;
// Padding up to so many rows is cheaper than fixed blocks.
constexpr int64_t kMostPadding = 32;
constexpr int64_t kFixedBlock = 16;
// Products of more elements are tried with fewer rows, to bound memory and time.
constexpr int64_t kMostElements = 4 << 20;

// The smallest bucket from which on `independent` holds up to `most`; 0 if that is a large one.
int64_t FewestIndependent(int64_t most, const std::function<bool(int64_t)>& independent) {
  int64_t fewest = 0;
  for (int64_t rows = 1; rows <= most; rows = Bucket(rows + 1)) {
    if (!independent(rows)) {
      fewest = 0;
    } else if (fewest == 0) {
      fewest = rows;
    }
  }
  return fewest <= kMostPadding ? fewest : 0;
}

// Tried once a shape, type and number of threads: which kernel the library picks and how it splits
// the work depend on these only, so random numbers stand for all.
SafeRows Try(const at::Tensor& packed, int64_t in_features, int64_t out_features,
             c10::ScalarType dtype) {
  const int64_t most =
      Bucket(std::clamp(kMostElements / out_features, 2 * kMostPadding, kMostTried));
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
    if (safe.fewest == 0) return InBlocks(x, safe.block);
    return Product(x, std::max(safe.fewest, Bucket(x.size(0))));
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

  // As a product of `rows` rows, at least x's.
  at::Tensor Product(const at::Tensor& x, int64_t rows) const {
    const int64_t own = x.size(0);
    if (own == rows) return PackedProduct(x, packed_, bias_);
    at::Tensor padded = at::empty({rows, in_features()}, x.options());
    padded.narrow(0, 0, own).copy_(x);
    padded.narrow(0, own, rows - own).zero_();
    return PackedProduct(padded, packed_, bias_).narrow(0, 0, own);
  }

  at::Tensor InBlocks(const at::Tensor& x, int64_t block) const {
    at::Tensor result = at::empty({x.size(0), out_features()}, x.options());
    for (int64_t first = 0; first < x.size(0); first += block) {
      const int64_t rows = std::min(block, x.size(0) - first);
      result.narrow(0, first, rows).copy_(Product(x.narrow(0, first, rows), block));
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
