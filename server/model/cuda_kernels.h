// Operators that a CUDA device runs otherwise than by the plain reference (model/reference.h), in
// operators of libtorch alone: nothing here is compiled for a GPU, so every machine can test what
// they compute. UNVERIFIED on a GPU.
#ifndef VALUESCOPE_MODEL_CUDA_KERNELS_H_
#define VALUESCOPE_MODEL_CUDA_KERNELS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace valuescope::model::cuda {

// Attention (model/kernels.h) by libtorch's fused kernel. Each sequence's queries lie in a row of
// their own, padded to `most_tokens`, so keys and values are gathered once a sequence and not once
// a token; the heads that share a key are queries of one head, so nothing is repeated for them. A
// soft cap, which no fused kernel knows, takes the reference.
at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, int64_t most_tokens, int64_t num_heads,
                     int64_t num_kv_heads, int64_t head_dim, double scale, double soft_cap,
                     int64_t window);

}  // namespace valuescope::model::cuda

#endif  // VALUESCOPE_MODEL_CUDA_KERNELS_H_
