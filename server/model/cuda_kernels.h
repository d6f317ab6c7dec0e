// Operators that a CUDA device runs otherwise than by the plain reference (model/reference.h), in
// operators of libtorch alone: nothing here is compiled for a GPU, so every machine can test what
// they compute. They also run on a CPU, where types without kernels of their own were asked for
// batch invariance.
//
// What a token gets never depends on its company: a kernel of libtorch may pick how it sums by the
// number of rows it is given, so sums over a row are left to kernels that take each row alone, or
// run over a fixed number of rows. Products of weights are linear.h's, and have a switch, because
// for them it costs speed.
#ifndef VALUESCOPE_MODEL_CUDA_KERNELS_H_
#define VALUESCOPE_MODEL_CUDA_KERNELS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace valuescope::model::cuda {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon);
void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim);
void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim);

// What the layers of a step that have one window share, made once a step (kernels.h). Empty where
// the attention takes the tokens one by one.
std::vector<at::Tensor> PlanAttention(const at::Tensor& sequences, const at::Tensor& positions,
                                      const at::Tensor& block_tables, const at::Tensor& keys,
                                      int64_t most_tokens, int64_t group, double soft_cap,
                                      int64_t window, bool batch_invariant);

// Attention (kernels.h) by libtorch's fused kernel. Each sequence's queries lie in a row of their
// own, padded to `most_tokens`, so keys and values are gathered once a sequence and not once a
// token; the heads that share a key are queries of one head, so nothing is repeated for them. A
// soft cap, which no fused kernel knows, takes the keys in tiles with a running maximum, as the
// kernel for a CPU does. `plan` is what PlanAttention gave for the same step and scores.
at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, at::TensorList plan, int64_t most_tokens,
                     int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, double scale,
                     double soft_cap, int64_t window, bool batch_invariant);

// The edits of step.h.
void AddRows(at::Tensor& x, const at::Tensor& active, const at::Tensor& rows,
             const at::Tensor& table_rows, bool only_adds);
void ScaleOrSet(at::Tensor& x, const at::Tensor& active, const at::Tensor& factors,
                const at::Tensor& values, const at::Tensor& table_rows);
void Project(at::Tensor& x, const at::Tensor& active, const at::Tensor& basis,
             const at::Tensor& ranks, const at::Tensor& kept, const at::Tensor& targets,
             const at::Tensor& table_rows);

// As step.h has it. Where the destination has one row, the sum runs token by token, so that a
// response split over steps sums to the same bits as in one.
void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination);

}  // namespace valuescope::model::cuda

#endif  // VALUESCOPE_MODEL_CUDA_KERNELS_H_
