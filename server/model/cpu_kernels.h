// The vectorised implementations behind kernels.h on a CPU. Same signatures, same meaning.
// kernels.cc registers them: a static library keeps only what somebody names.
#ifndef VALUESCOPE_MODEL_CPU_KERNELS_H_
#define VALUESCOPE_MODEL_CPU_KERNELS_H_

#include <ATen/core/Tensor.h>

#include "model/architecture.h"

namespace valuescope::model::cpu {

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon);
void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim);
void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim);
at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, int64_t num_heads, int64_t num_kv_heads,
                     int64_t head_dim, double scale, double soft_cap, int64_t window);
// weight [out, in] contiguous float32 -> [groups of 48 outputs, in, 48]
at::Tensor PackForProduct(const at::Tensor& weight);
int64_t PackedBytes(int64_t out, int64_t in);
// x [num_tokens, in] contiguous float32 -> [num_tokens, out]; on every processor, and fast on those
// with vectors of 16.
at::Tensor Product(const at::Tensor& x, const at::Tensor& packed, int64_t out_features);
// The same for two weights, packed alike: activation(x gate^T) * (x up^T), [num_tokens, out].
at::Tensor GatedProduct(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                        int64_t out_features, int64_t activation);
// out [rows, width] = activation(gate) * up. Rows of gate and up are `stride` apart, those of out
// `out_stride`.
void GateMultiplyRows(Activation activation, const float* gate, const float* up, int64_t stride,
                      int64_t rows, int64_t width, float* out, int64_t out_stride);
at::Tensor GateMultiply(const at::Tensor& gate_up, int64_t activation);
void SoftCap(at::Tensor& x, double cap);
void AddRows(at::Tensor& x, const at::Tensor& active, const at::Tensor& rows,
             const at::Tensor& table_rows);
void ScaleOrSet(at::Tensor& x, const at::Tensor& active, const at::Tensor& factors,
                const at::Tensor& values, const at::Tensor& table_rows);
void Project(at::Tensor& x, const at::Tensor& active, const at::Tensor& basis,
             const at::Tensor& ranks, const at::Tensor& kept, const at::Tensor& targets,
             const at::Tensor& table_rows);
void TapCopy(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination);
void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination);
void TapMax(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination);

}  // namespace valuescope::model::cpu

#endif  // VALUESCOPE_MODEL_CPU_KERNELS_H_
