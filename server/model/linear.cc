#include "model/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/roll.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "model/kernels.h"

namespace valuescope::model {
namespace {

// y [n, out] of x [n, in].
using Product = std::function<at::Tensor(const at::Tensor&)>;

// The product of x as one of `rows` rows, at least x's.
at::Tensor PaddedProduct(const at::Tensor& x, int64_t rows, const Product& product) {
  const int64_t own = x.size(0);
  if (own == rows) return product(x);
  at::Tensor padded = at::empty({rows, x.size(1)}, x.options());
  padded.narrow(0, 0, own).copy_(x);
  padded.narrow(0, own, rows - own).zero_();
  return product(padded).narrow(0, 0, own);
}

// The product of x as products of `block` rows each.
at::Tensor ProductInBlocks(const at::Tensor& x, int64_t block, int64_t out_features,
                           const Product& product) {
  if (x.size(0) <= block) return PaddedProduct(x, block, product);
  at::Tensor result = at::empty({x.size(0), out_features}, x.options());
  for (int64_t first = 0; first < x.size(0); first += block) {
    const int64_t rows = std::min(block, x.size(0) - first);
    result.narrow(0, first, rows).copy_(PaddedProduct(x.narrow(0, first, rows), block, product));
  }
  return result;
}

// x [n, in] with zeros behind it up to `columns` columns.
at::Tensor WithColumns(const at::Tensor& x, int64_t columns) {
  if (x.size(1) == columns) return x;
  const at::Tensor wider = at::zeros({x.size(0), columns}, x.options());
  wider.narrow(1, 0, x.size(1)).copy_(x);
  return wider;
}

// Whether a product of as many rows as x gives a row the same bits wherever it stands.
bool PlaceDoesNotMatter(const at::Tensor& x, const Product& product) {
  const at::Tensor once = product(x);
  for (const int64_t shift : {1, 5, 8}) {
    if (!product(x.roll(shift, 0)).roll(-shift, 0).equal(once)) return false;
  }
  return true;
}

class PlainLinear : public Linear {
 public:
  PlainLinear(const at::Tensor& weight, at::Tensor bias, Rows rows)
      : Linear(weight.size(1), weight.size(0), std::move(bias), weight),
        block_(rows == Rows::kIndependent ? IndependentBlock() : 0) {}

  at::Tensor Apply(const at::Tensor& x) const override {
    if (block_ == 0) return Multiply(x);
    return ProductInBlocks(x, block_, out_features(),
                           [this](const at::Tensor& rows) { return Multiply(rows); });
  }

 private:
  at::Tensor Multiply(const at::Tensor& x) const {
    return at::linear(x, plain(), bias().defined() ? std::optional(bias()) : std::nullopt);
  }

  // A library picks its kernel by the number of rows, so there is one number for all. Which are
  // good is tried, because within one kernel parts of the rows may be split differently.
  int64_t IndependentBlock() const {
    constexpr int64_t kBlocks[] = {64, 16};
    if (plain().is_meta()) return kBlocks[0];
    for (const int64_t block : kBlocks) {
      const at::Tensor x = at::randn({block, in_features()}).to(plain().options());
      if (PlaceDoesNotMatter(x, [this](const at::Tensor& rows) { return Multiply(rows); })) {
        return block;
      }
    }
    return 1;
  }

  const int64_t block_;  // rows of every product; 0: as many as there are
};

// Products run at these numbers of rows only, padded to the next: 1, 2, 3, 4, 6, 8, 12, 16, and
// from there four to every doubling. oneDNN makes a kernel for every number of rows that it meets,
// which takes it a millisecond and most of a megabyte each; and what runs is what was tried.
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

// Rows x and a packed weight to try products with.
struct Trial {
  at::Tensor x;         // [rows, in]
  PackedWeight packed;  // of [out, in]
};

// A type of few bits rounds away most of what the order of a sum changes. Here every term meets its
// negative somewhere else in the sum, so that what is left is that difference and nothing else.
Trial CancellingTrial(int64_t rows, int64_t in_features, int64_t out_features,
                      c10::ScalarType dtype) {
  const int64_t half = in_features / 2;
  const at::Tensor elsewhere = at::randperm(half, at::kLong);
  const auto twice = [&](const at::Tensor& first, double sign) {
    const at::Tensor rest = at::zeros({first.size(0), in_features - 2 * half});
    return at::cat({first, first.index_select(1, elsewhere).mul(sign), rest}, 1).to(dtype);
  };
  return {.x = twice(at::randn({rows, half}), 1),
          .packed = PackWeight(twice(at::randn({out_features, half}), -1))};
}

// Tried once a shape, type and number of threads: which kernel the library picks and how it splits
// the work depend on these only, so random numbers stand for all.
SafeRows Try(const PackedWeight& own_packed, int64_t in_features, int64_t out_features,
             c10::ScalarType dtype) {
  const int64_t most =
      Bucket(std::clamp(kMostElements / out_features, 2 * kMostPadding, kMostTried));
  // A weight too large for a second one has so many outputs that some row shows a difference.
  const bool cancels = dtype != at::kFloat && in_features * out_features <= 4 * kMostElements;
  const Trial trial =
      cancels ? CancellingTrial(most, in_features, out_features, dtype)
              : Trial{.x = at::randn({most, in_features}).to(dtype), .packed = own_packed};
  const at::Tensor& x = trial.x;
  const PackedWeight& packed = trial.packed;
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
  const bool same_anywhere = PlaceDoesNotMatter(
      x.narrow(0, 0, kFixedBlock),
      [&packed](const at::Tensor& rows) { return PackedProduct(rows, packed, {}); });
  return {.block = same_anywhere ? kFixedBlock : 1};
}

SafeRows TryOnce(const PackedWeight& packed, int64_t in_features, int64_t out_features,
                 c10::ScalarType dtype) {
  using Case = std::tuple<int64_t, int64_t, c10::ScalarType, int>;
  static std::mutex mutex;
  static std::map<Case, SafeRows> known;
  const Case asked(in_features, out_features, dtype, at::get_num_threads());
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (const auto found = known.find(asked); found != known.end()) return found->second;
  }
  // Not under the lock: other models' steps must not wait for this one's load.
  const SafeRows tried = Try(packed, in_features, out_features, dtype);
  const std::lock_guard<std::mutex> lock(mutex);
  return known.try_emplace(asked, tried).first->second;
}

// Columns of a packed product. A processor's tiles of bfloat16 hold 32: where a row ends within
// one, the library reads on into the next row, whose NaN times 0 would be this row's too.
int64_t PackedColumns(const at::Tensor& weight) {
  constexpr int64_t kTile = 32;
  if (weight.scalar_type() == at::kFloat) return weight.size(1);
  return (weight.size(1) + kTile - 1) / kTile * kTile;
}

class PackedLinear : public Linear {
 public:
  // `plain`: `weight`, where it is kept.
  PackedLinear(const at::Tensor& weight, at::Tensor bias, at::Tensor plain)
      : Linear(weight.size(1), weight.size(0), std::move(bias), std::move(plain)),
        columns_(PackedColumns(weight)),
        packed_(PackWeight(WithColumns(weight, columns_))) {
    Safe(weight.scalar_type());  // most models run with the threads they were loaded with
  }

  at::Tensor Apply(const at::Tensor& x) const override {
    const SafeRows safe = Safe(x.scalar_type());
    const auto product = [this](const at::Tensor& rows) {
      return PackedProduct(rows, packed_, bias());
    };
    const at::Tensor rows = WithColumns(x, columns_);
    if (safe.fewest == 0) return ProductInBlocks(rows, safe.block, out_features(), product);
    const int64_t wanted = packed_.is_own ? x.size(0) : Bucket(x.size(0));
    return PaddedProduct(rows, std::max(safe.fewest, wanted), product);
  }

 private:
  SafeRows Safe(c10::ScalarType dtype) const {
    return TryOnce(packed_, columns_, out_features(), dtype);
  }

  const int64_t columns_;
  const PackedWeight packed_;  // of [out, columns_]
};

// The gate where nothing does it in one go.
class PlainGate : public Gate {
 public:
  PlainGate(std::unique_ptr<Linear> projections, Activation activation)
      : Gate(projections->in_features(), projections->out_features(), projections->bias(),
             projections->plain(), activation),
        projections_(std::move(projections)) {}

  at::Tensor Apply(const at::Tensor& x) const override {
    return GateMultiply(projections_->Apply(x), activation());
  }
  at::Tensor Gates(const at::Tensor& x) const override {
    return GatesAndUps(x).narrow(1, 0, out_features() / 2);
  }
  at::Tensor GatesAndUps(const at::Tensor& x) const override { return projections_->Apply(x); }

 private:
  const std::unique_ptr<Linear> projections_;
};

class PackedGate : public Gate {
 public:
  // weight [2 * width, in]
  PackedGate(const at::Tensor& weight, Activation activation)
      : Gate(weight.size(1), weight.size(0), /*bias=*/{}, /*plain=*/{}, activation),
        gate_(PackWeight(weight.narrow(0, 0, weight.size(0) / 2))),
        up_(PackWeight(weight.narrow(0, weight.size(0) / 2, weight.size(0) / 2))) {}

  at::Tensor Apply(const at::Tensor& x) const override {
    return GatedProduct(x, gate_, up_, activation());
  }
  at::Tensor Gates(const at::Tensor& x) const override { return PackedProduct(x, gate_, {}); }
  at::Tensor GatesAndUps(const at::Tensor& x) const override {
    return at::cat({Gates(x), PackedProduct(x, up_, {})}, 1);
  }

 private:
  const PackedWeight gate_, up_;  // of [width, in]
};

}  // namespace

std::unique_ptr<Gate> Gate::Create(const at::Tensor& weight, const at::Tensor& bias,
                                   Activation activation, Linear::Rows rows) {
  VS_CHECK(weight.dim() == 2 && weight.size(0) % 2 == 0);
  if (bias.defined() || !PacksAsOwn(weight.device(), weight.scalar_type())) {
    return std::make_unique<PlainGate>(Linear::Create(weight, bias, rows), activation);
  }
  return std::make_unique<PackedGate>(weight.contiguous(), activation);
}

std::unique_ptr<Linear> Linear::Create(const at::Tensor& weight, const at::Tensor& bias,
                                       Rows rows) {
  VS_CHECK(weight.dim() == 2);
  const at::Tensor whole = weight.contiguous();
  if (CanPack(whole.device(), whole.scalar_type())) {
    return std::make_unique<PackedLinear>(whole, bias, /*plain=*/at::Tensor());
  }
  return std::make_unique<PlainLinear>(whole.is_cpu() ? whole.clone() : whole, bias, rows);
}

std::unique_ptr<Linear> Linear::Share(const at::Tensor& weight, Rows rows) {
  VS_CHECK(weight.dim() == 2 && weight.is_contiguous());
  if (CanPack(weight.device(), weight.scalar_type())) {
    return std::make_unique<PackedLinear>(weight, /*bias=*/at::Tensor(), /*plain=*/weight);
  }
  return std::make_unique<PlainLinear>(weight, at::Tensor(), rows);
}

std::unique_ptr<Linear> Linear::ShareTransposed(const at::Tensor& weight) {
  VS_CHECK(weight.dim() == 2);
  return std::make_unique<PlainLinear>(weight.t(), at::Tensor(), Rows::kFast);
}

}  // namespace valuescope::model
