#include "model/cuda_kernels.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "model/reference.h"

namespace valuescope::model::cuda {
namespace {

constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();
// A running maximum that every finite score exceeds, and that does not make NaN of a difference.
constexpr float kLeastMaximum = -1e30f;
// Keys of one tile; sequences have whole blocks, so a tile is a number of blocks.
constexpr int64_t kTileKeys = 256;
// Tokens that are looked at together where nothing may depend on how many there are.
constexpr int64_t kFixedTokens = 16;
// Rows of activations that are edited together, for the same reason.
constexpr int64_t kFixedRows = 64;
// Numbers of 64 bytes. A library's product may sum a matrix that begins elsewhere in another order
// (MKL 2025 does on AMD's processors), and of packed heads some begin anywhere.
constexpr int64_t kAlignedNumbers = 16;

int64_t RoundedUp(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

// x [n, ...] with zeros behind it up to `rows` rows.
at::Tensor PaddedTo(const at::Tensor& x, int64_t rows) {
  if (x.size(0) == rows) return x;
  std::vector<int64_t> shape = x.sizes().vec();
  shape[0] = rows - x.size(0);
  return at::cat({x, at::zeros(shape, x.options())});
}

// x [..., width] with zeros behind each row up to `width` numbers.
at::Tensor WidenedTo(const at::Tensor& x, int64_t width) {
  return x.size(-1) == width ? x : at::constant_pad_nd(x, {0, width - x.size(-1)});
}

// x becomes edited(x, table_rows), a fixed number of rows at a time. Padding is in table row 0.
void EditInFixedRows(
    at::Tensor& x, const at::Tensor& table_rows,
    const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& edited) {
  const int64_t rows = RoundedUp(x.size(0), kFixedRows);
  const at::Tensor padded = PaddedTo(x, rows), padded_rows = PaddedTo(table_rows, rows);
  for (int64_t first = 0; first < x.size(0); first += kFixedRows) {
    const int64_t own = std::min(kFixedRows, x.size(0) - first);
    x.narrow(0, first, own)
        .copy_(edited(padded.narrow(0, first, kFixedRows), padded_rows.narrow(0, first, kFixedRows))
                   .narrow(0, 0, own));
  }
}

// Softmax over the keys in tiles, each sum rescaled when a later tile has a larger maximum. A tile
// that a query sees nothing of changes no bit of it.
//   queries [n, num_kv_heads, r, width] float32, of which width - head_dim numbers are zeros;
//   query_positions [n, r] int64; last_positions [n] int64, beyond which blocks may hold anything;
//   tables [n, blocks] int64
// Returns [n, num_kv_heads, r, width] float32.
at::Tensor TiledAttention(const at::Tensor& queries, const at::Tensor& query_positions,
                          const at::Tensor& last_positions, const at::Tensor& tables,
                          const at::Tensor& keys, const at::Tensor& values, double scale,
                          double soft_cap, int64_t window) {
  const int64_t n = queries.size(0), block_size = keys.size(1);
  const int64_t tile_blocks = std::max<int64_t>(1, kTileKeys / block_size);
  const int64_t tile = tile_blocks * block_size;
  const at::Tensor padded_tables = PaddedTo(tables.t(), RoundedUp(tables.size(1), tile_blocks)).t();
  const at::Tensor positions = query_positions.unsqueeze(1).unsqueeze(3);  // [n, 1, r, 1]
  const at::Tensor last = last_positions.view({n, 1, 1, 1});
  at::Tensor maximum = at::full_like(queries.narrow(3, 0, 1), kLeastMaximum);
  at::Tensor sum = at::zeros_like(maximum), out = at::zeros_like(queries);
  for (int64_t block = 0; block < padded_tables.size(1); block += tile_blocks) {
    const at::Tensor chosen = padded_tables.narrow(1, block, tile_blocks).reshape(-1);
    const at::Tensor places = at::arange(block * block_size, block * block_size + tile,
                                         positions.options());  // [tile]
    const auto of_tile = [&](const at::Tensor& cache) {
      return WidenedTo(cache.index_select(0, chosen), queries.size(3))
          .view({n, tile, cache.size(2), queries.size(3)})
          .permute({0, 2, 1, 3})
          .to(at::kFloat)
          .masked_fill(places.view({1, 1, tile, 1}) > last, 0);
    };
    at::Tensor scores = at::matmul(queries, of_tile(keys).transpose(-1, -2)) * scale;
    if (soft_cap > 0) scores = at::tanh(scores / soft_cap) * soft_cap;
    at::Tensor unseen = places > positions;
    if (window > 0) unseen = unseen | (places <= positions - window);
    scores = scores.masked_fill(unseen, kNothingSeen);
    const at::Tensor larger = at::maximum(maximum, scores.amax(-1, /*keepdim=*/true));
    const at::Tensor weights = at::exp(scores - larger), rescale = at::exp(maximum - larger);
    sum = sum * rescale + weights.sum(-1, /*keepdim=*/true);
    out = out * rescale + at::matmul(weights, of_tile(values));
    maximum = larger;
  }
  return out / sum;
}

// Every token as a sequence of its own, a fixed number of them at a time, so that each kernel is
// given the same shapes whatever the step is.
at::Tensor TokenwiseAttention(const at::Tensor& qkv, const at::Tensor& keys,
                              const at::Tensor& values, const at::Tensor& sequences,
                              const at::Tensor& positions, const at::Tensor& block_tables,
                              int64_t num_heads, int64_t num_kv_heads, int64_t head_dim,
                              double scale, double soft_cap, int64_t window) {
  const int64_t num_tokens = qkv.size(0), group = num_heads / num_kv_heads;
  const int64_t rows = RoundedUp(num_tokens, kFixedTokens);
  const int64_t width = RoundedUp(head_dim, kAlignedNumbers);
  const at::Tensor queries =
      WidenedTo(PaddedTo(qkv.narrow(1, 0, num_heads * head_dim).to(at::kFloat), rows)
                    .view({rows, num_kv_heads, group, head_dim}),
                width);
  const at::Tensor places = PaddedTo(positions, rows);
  const at::Tensor tables = PaddedTo(block_tables.index_select(0, sequences), rows);
  std::vector<at::Tensor> attended;
  for (int64_t first = 0; first < rows; first += kFixedTokens) {
    const at::Tensor own = places.narrow(0, first, kFixedTokens);
    attended.push_back(TiledAttention(
        queries.narrow(0, first, kFixedTokens), own.unsqueeze(1).expand({kFixedTokens, group}), own,
        tables.narrow(0, first, kFixedTokens), keys, values, scale, soft_cap, window));
  }
  return at::cat(attended)
      .narrow(0, 0, num_tokens)
      .narrow(3, 0, head_dim)
      .reshape({num_tokens, num_heads * head_dim})
      .to(qkv.scalar_type());
}

// The fused kernel of a GPU takes the keys in blocks from the first on, whatever the shape. It
// knows no soft cap and wants heads of whole 16 bytes; what stands in for it, and what a CPU has,
// picks how it sums by the shape.
bool TakesTokensOneByOne(const at::Tensor& keys, double soft_cap, bool batch_invariant) {
  const bool fused =
      soft_cap <= 0 && !keys.is_cpu() && keys.size(3) * keys.element_size() % 16 == 0;
  return batch_invariant && !fused;
}

// What PlanAttention returns, in this order.
struct Plan {
  explicit Plan(at::TensorList parts)
      : rows(parts[0]),
        query_positions(parts[1]),
        last_positions(parts[2]),
        beyond(parts[3]),
        mask(parts[4]) {}

  // [num_tokens] int64, place of a token's query in num_sequences rows of most_tokens
  const at::Tensor& rows;
  // [num_sequences, most_tokens] int64; padding is at position 0, which sees itself
  const at::Tensor& query_positions;
  const at::Tensor& last_positions;  // [num_sequences] int64
  // [num_sequences, length, 1, 1] bool: behind a sequence's end, where blocks may hold anything
  const at::Tensor& beyond;
  // [num_sequences, 1, group * most_tokens, length] of the model's type: 0, or -infinity where a
  // query does not see a key; empty where the scores are capped
  const at::Tensor& mask;
};

// of_tokens [num_tokens, ...] at `rows` of zeros [num_rows, ...]
at::Tensor Scattered(const at::Tensor& of_tokens, const at::Tensor& rows, int64_t num_rows) {
  std::vector<int64_t> shape = of_tokens.sizes().vec();
  shape[0] = num_rows;
  return at::zeros(shape, of_tokens.options()).index_copy_(0, rows, of_tokens);
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  // A block of threads a row. The weight is multiplied where transformers does it: behind the
  // rounding if it has x's type, before it if not.
  const auto normed = [epsilon](const at::Tensor& rows, const std::optional<at::Tensor>& gain) {
    return std::get<0>(at::_fused_rms_norm(rows, {rows.size(-1)}, gain, epsilon));
  };
  if (weight.scalar_type() == x.scalar_type()) return normed(x, std::nullopt).mul_(weight);
  return normed(x.to(at::kFloat), weight).to(x.scalar_type());
}

void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
  const at::Tensor by_head = qkv.view({qkv.size(0), num_heads + 2 * num_kv_heads, head_dim});
  const auto norm = [&](int64_t first, int64_t count, const at::Tensor& weight) {
    const at::Tensor heads = by_head.narrow(1, first, count);
    heads.copy_(RmsNorm(heads.contiguous(), weight, epsilon));
  };
  norm(0, num_heads, query_weight);
  norm(num_heads, num_kv_heads, key_weight);
}

// In as few launches as there can be.
void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
  const int64_t half = head_dim / 2, rotated = num_heads + num_kv_heads;
  const at::Tensor by_head = qkv.view({qkv.size(0), num_heads + 2 * num_kv_heads, head_dim});
  const at::Tensor turned = by_head.narrow(1, 0, rotated);
  const at::Tensor first = turned.narrow(2, 0, half), second = turned.narrow(2, half, half);
  const at::Tensor cosine = cosines.unsqueeze(1), sine = sines.unsqueeze(1);
  const at::Tensor real = (first * cosine).addcmul_(second, sine, -1);
  second.mul_(cosine).addcmul_(first, sine);
  first.copy_(real);
  keys.view({-1, num_kv_heads, head_dim})
      .index_copy_(0, cache_slots, by_head.narrow(1, num_heads, num_kv_heads));
  values.view({-1, num_kv_heads, head_dim})
      .index_copy_(0, cache_slots, by_head.narrow(1, rotated, num_kv_heads));
}

std::vector<at::Tensor> PlanAttention(const at::Tensor& sequences, const at::Tensor& positions,
                                      const at::Tensor& block_tables, const at::Tensor& keys,
                                      int64_t most_tokens, int64_t group, double soft_cap,
                                      int64_t window, bool batch_invariant) {
  if (TakesTokensOneByOne(keys, soft_cap, batch_invariant)) return {};
  const int64_t num_sequences = block_tables.size(0);
  const auto per_sequence = [&](int64_t begin, const char* reduction) {
    return at::full({num_sequences}, begin, positions.options())
        .scatter_reduce(0, sequences, positions, reduction);
  };
  // A step feeds consecutive positions of a sequence, so the first one says where the others go.
  const at::Tensor first = per_sequence(std::numeric_limits<int64_t>::max(), "amin");
  const at::Tensor rows = sequences * most_tokens + positions - first.index_select(0, sequences);
  const at::Tensor query_positions =
      Scattered(positions, rows, num_sequences * most_tokens).view({num_sequences, most_tokens});
  const int64_t length = block_tables.size(1) * keys.size(1);
  const at::Tensor places = at::arange(length, positions.options());
  const at::Tensor last = per_sequence(0, "amax");
  at::Tensor mask = at::empty({0}, keys.options());
  if (soft_cap <= 0) {
    const at::Tensor own = query_positions.view({num_sequences, 1, most_tokens, 1});
    at::Tensor unseen = places > own;
    if (window > 0) unseen = unseen | (places <= own - window);
    mask = at::zeros(unseen.sizes(), keys.options())
               .masked_fill_(unseen, kNothingSeen)
               .repeat({1, 1, group, 1});
  }
  const at::Tensor beyond =
      (places.unsqueeze(0) > last.unsqueeze(1)).view({num_sequences, length, 1, 1});
  return {rows, query_positions, last, beyond, mask};
}

at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, at::TensorList plan, int64_t most_tokens,
                     int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, double scale,
                     double soft_cap, int64_t window, bool batch_invariant) {
  if (TakesTokensOneByOne(keys, soft_cap, batch_invariant)) {
    return TokenwiseAttention(qkv, keys, values, sequences, positions, block_tables, num_heads,
                              num_kv_heads, head_dim, scale, soft_cap, window);
  }
  const Plan shared(plan);
  const int64_t num_sequences = block_tables.size(0), group = num_heads / num_kv_heads;
  const int64_t length = block_tables.size(1) * keys.size(1), width = num_heads * head_dim;
  const at::Tensor queries =
      Scattered(qkv.narrow(1, 0, width), shared.rows, num_sequences * most_tokens)
          .view({num_sequences, most_tokens, num_kv_heads, group, head_dim})
          .permute({0, 2, 3, 1, 4})
          .reshape({num_sequences, num_kv_heads, group * most_tokens, head_dim});
  const auto of_tokens = [&](const at::Tensor& attended) {
    return attended.view({num_sequences, num_kv_heads, group, most_tokens, head_dim})
        .permute({0, 3, 1, 2, 4})
        .reshape({num_sequences * most_tokens, width})
        .index_select(0, shared.rows);
  };
  if (soft_cap > 0) {
    return of_tokens(TiledAttention(queries.to(at::kFloat),
                                    shared.query_positions.repeat({1, group}),
                                    shared.last_positions, block_tables, keys, values, scale,
                                    soft_cap, window))
        .to(qkv.scalar_type());
  }
  // What is beyond may be NaN, which no mask silences.
  const auto of_sequences = [&](const at::Tensor& cache) {
    return cache.index_select(0, block_tables.reshape(-1))
        .view({num_sequences, length, num_kv_heads, head_dim})
        .masked_fill_(shared.beyond, 0)
        .permute({0, 2, 1, 3});
  };
  return of_tokens(at::scaled_dot_product_attention(queries, of_sequences(keys),
                                                    of_sequences(values), shared.mask,
                                                    /*dropout_p=*/0.0, /*is_causal=*/false, scale));
}

void AddRows(at::Tensor& x, const at::Tensor& active, const at::Tensor& rows,
             const at::Tensor& table_rows, bool only_adds) {
  if (only_adds) {
    // In float32, rounded once: the sum has the wider of the two types before it is stored.
    x.add_(rows.index_select(0, table_rows.clamp_max(rows.size(0) - 1)));
    return;
  }
  EditInFixedRows(x, table_rows, [&](const at::Tensor& some, const at::Tensor& their_rows) {
    return reference::Added(some, active, rows, their_rows);
  });
}

void ScaleOrSet(at::Tensor& x, const at::Tensor& active, const at::Tensor& factors,
                const at::Tensor& values, const at::Tensor& table_rows) {
  EditInFixedRows(x, table_rows, [&](const at::Tensor& some, const at::Tensor& their_rows) {
    return reference::ScaledOrSet(some, active, factors, values, their_rows);
  });
}

void Project(at::Tensor& x, const at::Tensor& active, const at::Tensor& basis,
             const at::Tensor& ranks, const at::Tensor& kept, const at::Tensor& targets,
             const at::Tensor& table_rows) {
  EditInFixedRows(x, table_rows, [&](const at::Tensor& some, const at::Tensor& their_rows) {
    return reference::Projected(some, active, basis, ranks, kept, targets, their_rows);
  });
}

void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  if (destination.size(0) > 1) return reference::TapSum(x, tokens, rows, destination);
  // A scan along rows goes from one to the next.
  const at::Tensor running =
      at::cat({destination, x.index_select(0, tokens).to(at::kDouble)}).cumsum(0);
  destination.copy_(running.narrow(0, running.size(0) - 1, 1));
}

}  // namespace valuescope::model::cuda
