#include "model/cuda_kernels.h"

#include <ATen/ATen.h>

#include <limits>
#include <vector>

#include "model/reference.h"

namespace valuescope::model::cuda {

at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, int64_t most_tokens, int64_t num_heads,
                     int64_t num_kv_heads, int64_t head_dim, double scale, double soft_cap,
                     int64_t window) {
  if (soft_cap > 0) {
    return reference::Attention(qkv, keys, values, sequences, positions, block_tables, num_heads,
                                num_kv_heads, head_dim, scale, soft_cap, window);
  }
  const int64_t num_sequences = block_tables.size(0), group = num_heads / num_kv_heads;
  const int64_t length = block_tables.size(1) * keys.size(1), width = num_heads * head_dim;
  const auto per_sequence = [&](int64_t begin, const char* reduction) {
    return at::full({num_sequences}, begin, positions.options())
        .scatter_reduce(0, sequences, positions, reduction);
  };
  // A step feeds consecutive positions of a sequence, so the first one says where the others go.
  const at::Tensor first = per_sequence(std::numeric_limits<int64_t>::max(), "amin");
  const at::Tensor rows = sequences * most_tokens + positions - first.index_select(0, sequences);
  const auto padded = [&](const at::Tensor& of_tokens) {  // padding is 0
    std::vector<int64_t> shape = of_tokens.sizes().vec();
    shape[0] = num_sequences * most_tokens;
    return at::zeros(shape, of_tokens.options()).index_copy_(0, rows, of_tokens);
  };
  const at::Tensor queries =
      padded(qkv.narrow(1, 0, width))
          .view({num_sequences, most_tokens, num_kv_heads, group, head_dim})
          .permute({0, 2, 3, 1, 4})
          .reshape({num_sequences, num_kv_heads, group * most_tokens, head_dim});

  // Padding stands at position 0 and sees it, because a row that sees nothing would be NaN.
  const at::Tensor query_positions = padded(positions).view({num_sequences, 1, most_tokens, 1});
  const at::Tensor places = at::arange(length, positions.options());
  at::Tensor seen = places <= query_positions;  // [num_sequences, 1, most_tokens, length]
  if (window > 0) seen = seen & (places > query_positions - window);
  const at::Tensor mask = seen.repeat({1, 1, group, 1});

  // Blocks beyond a sequence's end may hold anything, NaN too, which no mask silences.
  const at::Tensor beyond = (places.unsqueeze(0) > per_sequence(0, "amax").unsqueeze(1))
                                .view({num_sequences, length, 1, 1});
  const auto of_sequences = [&](const at::Tensor& cache) {
    return cache.index_select(0, block_tables.reshape(-1))
        .view({num_sequences, length, num_kv_heads, head_dim})
        .masked_fill(beyond, 0)
        .permute({0, 2, 1, 3});
  };
  return at::scaled_dot_product_attention(queries, of_sequences(keys), of_sequences(values), mask,
                                          /*dropout_p=*/0.0, /*is_causal=*/false, scale)
      .view({num_sequences, num_kv_heads, group, most_tokens, head_dim})
      .permute({0, 3, 1, 2, 4})
      .reshape({num_sequences * most_tokens, width})
      .index_select(0, rows);
}

}  // namespace valuescope::model::cuda
