#include "model/reference.h"

#include <ATen/ATen.h>

#include <limits>
#include <vector>

#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::model::reference {

namespace {

at::Tensor Normed(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& scale) {
  const at::Tensor wide = x.to(at::kFloat);
  if (weight.scalar_type() == x.scalar_type()) return weight * (wide * scale).to(x.scalar_type());
  return (weight * (wide * scale)).to(x.scalar_type());
}

}  // namespace

at::Tensor RmsFactor(const at::Tensor& x, double epsilon) {
  return at::rsqrt(x.to(at::kFloat).pow(2).mean(-1, /*keepdim=*/true) + epsilon);
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  return Normed(x, weight, RmsFactor(x, epsilon));
}

at::Tensor RmsNormGradient(const at::Tensor& x, const at::Tensor& weight, double epsilon,
                           bool holds_factor, const at::Tensor& gradient) {
  const at::Tensor factor = RmsFactor(x, epsilon);
  at::Tensor by_x = gradient.to(at::kFloat) * weight;
  if (!holds_factor) {
    const at::Tensor wide = x.to(at::kFloat);
    const at::Tensor along = (by_x * wide).mean(-1, /*keepdim=*/true);
    by_x.sub_(wide * (along * factor.square()));
  }
  return by_x.mul_(factor).to(x.scalar_type());
}

void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
  const at::Tensor by_head = qkv.view({qkv.size(0), num_heads + 2 * num_kv_heads, head_dim});
  const at::Tensor queries = by_head.narrow(1, 0, num_heads);
  const at::Tensor keys = by_head.narrow(1, num_heads, num_kv_heads);
  queries.copy_(RmsNorm(queries.clone(), query_weight, epsilon));
  keys.copy_(RmsNorm(keys.clone(), key_weight, epsilon));
}

void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
  Rotate(qkv, cosines, sines, num_heads, num_kv_heads, head_dim);
  Cache(qkv, cache_slots, keys, values, num_heads, num_kv_heads, head_dim);
}

void Rotate(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines, int64_t num_heads,
            int64_t num_kv_heads, int64_t head_dim) {
  const int64_t half = head_dim / 2;
  const at::Tensor turned = qkv.view({qkv.size(0), num_heads + 2 * num_kv_heads, head_dim})
                                .narrow(1, 0, num_heads + num_kv_heads);
  const at::Tensor cosine = cosines.unsqueeze(1), sine = sines.unsqueeze(1);
  const at::Tensor first = turned.narrow(2, 0, half).clone();
  const at::Tensor second = turned.narrow(2, half, half).clone();
  turned.narrow(2, 0, half).copy_(first * cosine - second * sine);
  turned.narrow(2, half, half).copy_(second * cosine + first * sine);
}

void Cache(const at::Tensor& qkv, const at::Tensor& cache_slots, at::Tensor& keys,
           at::Tensor& values, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
  const at::Tensor by_head = qkv.view({qkv.size(0), num_heads + 2 * num_kv_heads, head_dim});
  const c10::List<std::optional<at::Tensor>> places(
      {at::div(cache_slots, keys.size(1), "floor"), at::remainder(cache_slots, keys.size(1))});
  at::index_put_(keys, places, by_head.narrow(1, num_heads, num_kv_heads));
  at::index_put_(values, places, by_head.narrow(1, num_heads + num_kv_heads, num_kv_heads));
}

at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, int64_t num_heads, int64_t num_kv_heads,
                     int64_t head_dim, double scale, double soft_cap, int64_t window) {
  const int64_t num_tokens = qkv.size(0), group = num_heads / num_kv_heads;
  const at::Tensor queries = qkv.narrow(1, 0, num_heads * head_dim)
                                 .reshape({num_tokens, num_kv_heads, group, head_dim})
                                 .to(at::kFloat);
  const at::Tensor tables = block_tables.index_select(0, sequences);  // [num_tokens, max_blocks]
  const int64_t length = tables.size(1) * keys.size(1);
  const auto of_token = [&](const at::Tensor& cache) {
    return cache.index_select(0, tables.reshape(-1))
        .view({num_tokens, length, num_kv_heads, head_dim})
        .permute({0, 2, 1, 3})
        .to(at::kFloat);  // [num_tokens, num_kv_heads, length, head_dim]
  };
  const at::Tensor places = at::arange(length, positions.options()).unsqueeze(0);
  at::Tensor unseen = places > positions.unsqueeze(1);
  if (window > 0) unseen = unseen | (places <= positions.unsqueeze(1) - window);
  const at::Tensor mask = unseen.view({num_tokens, 1, 1, length});
  // Blocks beyond a sequence's end may hold anything, NaN too: zero weight alone would not silence
  // them, neither in the sum nor in its gradient.
  const auto seen_of = [&](const at::Tensor& cache) {
    return of_token(cache).masked_fill(mask.transpose(-1, -2), 0);
  };
  at::Tensor scores = at::matmul(queries, seen_of(keys).transpose(-1, -2)) * scale;
  if (soft_cap > 0) scores = at::tanh(scores / soft_cap) * soft_cap;
  scores = scores.masked_fill(mask, -std::numeric_limits<float>::infinity());
  return at::matmul(at::softmax(scores, -1), seen_of(values))
      .reshape({num_tokens, num_heads * head_dim})
      .to(qkv.scalar_type());
}

at::Tensor GateMultiply(const at::Tensor& gate_up, int64_t activation) {
  const int64_t width = gate_up.size(1) / 2;
  const at::Tensor gate = gate_up.narrow(1, 0, width), up = gate_up.narrow(1, width, width);
  if (static_cast<Activation>(activation) == Activation::kSilu) return at::silu(gate) * up;
  return at::gelu(gate, "tanh") * up;
}

at::Tensor GateMultiplyGradient(const at::Tensor& gate_up, int64_t activation,
                                const at::Tensor& gradient) {
  const int64_t width = gate_up.size(1) / 2;
  const at::Tensor gate = gate_up.narrow(1, 0, width), up = gate_up.narrow(1, width, width);
  if (static_cast<Activation>(activation) == Activation::kSilu) {
    return at::cat({at::silu_backward(gradient * up, gate), gradient * at::silu(gate)}, 1);
  }
  return at::cat(
      {at::gelu_backward(gradient * up, gate, "tanh"), gradient * at::gelu(gate, "tanh")}, 1);
}

void SoftCap(at::Tensor& x, double cap) { x.copy_(at::tanh(x / cap) * cap); }

namespace {

// What the tokens of a step find in a stage's tables.
struct FoundRows {
  FoundRows(const at::Tensor& active, const at::Tensor& table_rows)
      // Rows beyond a table are inactive, as row 0 is.
      : rows(at::where(table_rows < active.size(0), table_rows, 0)),
        activity(active.index_select(0, rows)) {}

  // [num_tokens, ...]; 0 for inactive rows, because a gradient would carry on what is stale there.
  at::Tensor Of(const at::Tensor& table) const {
    std::vector<int64_t> shape(static_cast<size_t>(table.dim()), 1);
    shape[0] = -1;
    return table.index_select(0, rows).masked_fill((activity == kInactive).view(shape), 0);
  }

  at::Tensor rows;      // [num_tokens] int64
  at::Tensor activity;  // [num_tokens] uint8
};

// Norm preserved where asked for, rounded, and only for tokens of active rows. before [num_tokens,
// width] of any type, after [num_tokens, width] float32, activity [num_tokens] uint8.
at::Tensor Rounded(const at::Tensor& before, at::Tensor after, const at::Tensor& activity) {
  const at::Tensor preserves = (activity == kPreservesNorm).unsqueeze(1);
  // Autograd follows both branches of a where: neither may divide by zero.
  const auto norm_of = [](const at::Tensor& x) {
    const at::Tensor squares = x.pow(2).sum(-1, /*keepdim=*/true);
    return at::where(squares > 0, squares, 1).sqrt() * (squares > 0);
  };
  const at::Tensor norm = norm_of(after);
  const at::Tensor ratio = norm_of(before.to(at::kFloat)) / at::where(norm > 0, norm, 1);
  after = at::where(preserves & (norm > 0), after * ratio, after);
  return at::where((activity != kInactive).unsqueeze(1), after.to(before.scalar_type()), before);
}

}  // namespace

at::Tensor Added(const at::Tensor& x, const at::Tensor& active, const at::Tensor& rows,
                 const at::Tensor& table_rows) {
  const FoundRows found(active, table_rows);
  return Rounded(x, x.to(at::kFloat) + found.Of(rows), found.activity);
}

at::Tensor ScaledOrSet(const at::Tensor& x, const at::Tensor& active, const at::Tensor& factors,
                       const at::Tensor& values, const at::Tensor& table_rows) {
  const FoundRows found(active, table_rows);
  const at::Tensor factor = found.Of(factors);
  const at::Tensor edited = at::where(factor != 0, x.to(at::kFloat) * factor, found.Of(values));
  return Rounded(x, edited, found.activity);
}

at::Tensor Projected(const at::Tensor& x, const at::Tensor& active, const at::Tensor& basis,
                     const at::Tensor& ranks, const at::Tensor& kept, const at::Tensor& targets,
                     const at::Tensor& table_rows) {
  const FoundRows found(active, table_rows);
  const at::Tensor wide = x.to(at::kFloat);
  // Where a row has fewer directions than the table, anything may stand behind them.
  const at::Tensor unused = at::arange(basis.size(1), ranks.options()).unsqueeze(0) >=
                            found.Of(ranks).unsqueeze(1);  // [num_tokens, rank]
  const at::Tensor directions = found.Of(basis).masked_fill(unused.unsqueeze(2), 0);
  const at::Tensor wanted = found.Of(targets).masked_fill(unused, 0);
  const at::Tensor change = found.Of(kept).unsqueeze(1) - 1;  // [num_tokens, 1]
  at::Tensor edited = wide;
  for (int64_t k = 0; k < directions.size(1); ++k) {
    const at::Tensor direction = directions.select(1, k);  // [num_tokens, width]
    const at::Tensor along = (wide * direction).sum(-1, /*keepdim=*/true);
    edited = edited + (change * along + wanted.narrow(1, k, 1)) * direction;
  }
  return Rounded(x, edited, found.activity);
}

void TapCopy(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination) {
  destination.index_copy_(0, rows, x.index_select(0, tokens).to(destination.scalar_type()));
}

void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  destination.index_add_(0, rows, x.index_select(0, tokens).to(at::kDouble));
}

void TapMax(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  const at::Tensor read = x.index_select(0, tokens).to(destination.scalar_type());
  destination.scatter_reduce_(0, rows.unsqueeze(1).expand_as(read), read, "amax");
}

at::Tensor RowNorms(const at::Tensor& x) {
  at::Tensor sums = x.to(at::kDouble).square();
  while (sums.size(1) > 1) {
    const int64_t pairs = sums.size(1) / 2, left = sums.size(1) - pairs;
    const at::Tensor upper = sums.narrow(1, left, pairs);
    sums = sums.narrow(1, 0, left).clone();
    sums.narrow(1, 0, pairs).add_(upper);
  }
  return sums.sqrt();
}

}  // namespace valuescope::model::reference
