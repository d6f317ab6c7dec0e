// The readable counterpart of kernels.h in plain ATen operators: what the fast kernels are tested
// against, what gradients follow in their place, and what runs on devices that have no kernel of
// their own. Same signatures, same meaning.
#ifndef VALUESCOPE_MODEL_REFERENCE_H_
#define VALUESCOPE_MODEL_REFERENCE_H_

#include <ATen/core/Tensor.h>

namespace valuescope::model::reference {

// What RmsNorm multiplies a row of x by before its weight: float32 [n, 1].
at::Tensor RmsFactor(const at::Tensor& x, double epsilon);
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon);
// d L / d x, of x's shape and type, where `gradient` is d L / d RmsNorm(x). With `holds_factor` the
// factor is a constant to it.
at::Tensor RmsNormGradient(const at::Tensor& x, const at::Tensor& weight, double epsilon,
                           bool holds_factor, const at::Tensor& gradient);
void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim);
void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim);
// Its two parts.
void Rotate(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines, int64_t num_heads,
            int64_t num_kv_heads, int64_t head_dim);
void Cache(const at::Tensor& qkv, const at::Tensor& cache_slots, at::Tensor& keys,
           at::Tensor& values, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim);
at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, int64_t num_heads, int64_t num_kv_heads,
                     int64_t head_dim, double scale, double soft_cap, int64_t window);
at::Tensor GateMultiply(const at::Tensor& gate_up, int64_t activation);
// d L / d gate_up [n, 2 * width] where `gradient` [n, width] is d L / d what GateMultiply makes of
// it.
at::Tensor GateMultiplyGradient(const at::Tensor& gate_up, int64_t activation,
                                const at::Tensor& gradient);
void SoftCap(at::Tensor& x, double cap);
// The edits return what x becomes and leave x alone, so that autograd can follow them.
at::Tensor Added(const at::Tensor& x, const at::Tensor& active, const at::Tensor& rows,
                 const at::Tensor& table_rows);
at::Tensor ScaledOrSet(const at::Tensor& x, const at::Tensor& active, const at::Tensor& factors,
                       const at::Tensor& values, const at::Tensor& table_rows);
at::Tensor Projected(const at::Tensor& x, const at::Tensor& active, const at::Tensor& basis,
                     const at::Tensor& ranks, const at::Tensor& kept, const at::Tensor& targets,
                     const at::Tensor& table_rows);
void TapCopy(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination);
void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination);
void TapMax(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination);

// Euclidean norms of the rows of x [n, width], float64 [n, 1]. A row's has the same bits in any
// company and on any device: coordinates are added in pairs, one operator a level.
at::Tensor RowNorms(const at::Tensor& x);

}  // namespace valuescope::model::reference

#endif  // VALUESCOPE_MODEL_REFERENCE_H_
