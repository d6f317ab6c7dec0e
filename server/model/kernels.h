// The forward pass's own operators, registered with the dispatcher (namespace "valuescope") so that
// observers, meta tensors and other devices see them. Each has three implementations: a vectorised
// one for a CPU (cpu_kernels.h), one of few launches for a GPU and for meta tensors
// (cuda_kernels.h), and the plain one of reference.h. Gradients do not pass through them
// (operators.h). On a CPU a token's result never depends on the tokens beside it.
#ifndef VALUESCOPE_MODEL_KERNELS_H_
#define VALUESCOPE_MODEL_KERNELS_H_

#include <ATen/core/Tensor.h>

#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::model {

// The heads of one model's attention.
struct HeadShape {
  int64_t num_heads = 0;     // query heads
  int64_t num_kv_heads = 0;  // divides num_heads
  int64_t head_dim = 0;      // even
};

// How scores become weights. One layer may differ from the next in its window.
struct AttentionScores {
  double scale = 1;     // of query . key
  double soft_cap = 0;  // c: scores become c tanh(score / c); 0 is none
  int64_t window = 0;   // a token sees itself and window - 1 tokens before it; 0 is all of them
  // Nothing of a token's result may depend on its company, whatever that costs. On a CPU nothing
  // does in any case.
  bool batch_invariant = false;
};

// x / sqrt(mean(x^2) + epsilon) * weight. x [num_tokens, width], weight [width]. A weight of x's
// type multiplies what was rounded to that type; a float32 weight beside a narrower x multiplies
// first and the product is rounded once.
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon);

// RmsNorm over each query head and each key head, in place; values stay. query_weight, key_weight
// [head_dim].
void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, const HeadShape& heads);

// Rotates queries and keys by their positions (the two halves of a head are the real and imaginary
// parts, as Hugging Face has it), in place, and writes keys and values to the cache.
//   qkv [num_tokens, (num_heads + 2 num_kv_heads) * head_dim]; cosines, sines [num_tokens,
//   head_dim / 2] of qkv's type, those of each token's position; cache_slots [num_tokens] int64;
//   keys, values [num_blocks, block_size, num_kv_heads, head_dim]
void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    const HeadShape& heads);

// What the layers with the same scores share in a step, made once for all of them; only the
// device's own Attention reads it.
std::vector<at::Tensor> PlanAttention(const StepBatch& batch, const at::Tensor& keys,
                                      const HeadShape& heads, const AttentionScores& scores);

// Causal attention of every token over its own sequence's cached keys and values, positions 0 ..
// its own, or the window's part of them. Keys are taken in cache blocks, which start at multiples
// of the block size whatever the batch, with a running maximum: neither chunking nor company
// changes a bit of what a CPU computes.
//   qkv, keys, values as RotateAndCache has them; plan: PlanAttention's of this batch
// Returns [num_tokens, num_heads * head_dim].
at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const StepBatch& batch, const std::vector<at::Tensor>& plan,
                     const HeadShape& heads, const AttentionScores& scores);

// activation(gate) * up. gate_up [num_tokens, 2 * width], gate first -> [num_tokens, width].
at::Tensor GateMultiply(const at::Tensor& gate_up, Activation activation);

// x becomes cap tanh(x / cap), in place. x [num_tokens, width], cap > 0.
void SoftCap(at::Tensor& x, double cap);

// The edits of step.h, in place: token t by row table_rows[t] of the stage's tables. x [num_tokens,
// width], table_rows [num_tokens] int64.
void Edit(at::Tensor& x, const AddStage& stage, const at::Tensor& table_rows);
void Edit(at::Tensor& x, const ScaleOrSetStage& stage, const at::Tensor& table_rows);
void Edit(at::Tensor& x, const ProjectStage& stage, const at::Tensor& table_rows);

// Taps (step.h): destination[rows[j]] = x[tokens[j]], += in float64, or max; or += the norm.
void TapCopy(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination);
void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination);
void TapMax(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination);
void TapNorm(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination);
// The one that `tap` asks for, of its columns.
void Tap(const at::Tensor& x, const TapStage& tap);

// A weight on a CPU in the layout of the kernels that are the fastest there (which ones depends on
// the processor alone).
struct PackedWeight {
  at::Tensor blocks;  // opaque
  int64_t out_features = 0;
  // For our own product, which makes nothing for a number of rows.
  bool is_own = false;
};

// x W^T + b with a packed W; only where CanPack. PackWeight: [out, in] -> about the same size;
// PackedProduct: x [num_tokens, in] contiguous, bias [out] or undefined -> [num_tokens, out].
bool CanPack(c10::Device device, c10::ScalarType dtype);
// Whether it is packed for cpu_kernels.h's own product, which has a gated form.
bool PacksAsOwn(c10::Device device, c10::ScalarType dtype);
PackedWeight PackWeight(const at::Tensor& weight);
// Bytes of memory that PackWeight takes at most for a weight [out_features, in_features] on a CPU.
int64_t PackedBytes(int64_t out_features, int64_t in_features, c10::ScalarType dtype);
at::Tensor PackedProduct(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& bias);

// activation(x gate^T) * (x up^T) in one go, which neither writes the two products to memory nor
// reads them from there; only where both are packed as our own. x [num_tokens, in] contiguous ->
// [num_tokens, out].
at::Tensor GatedProduct(const at::Tensor& x, const PackedWeight& gate, const PackedWeight& up,
                        Activation activation);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_KERNELS_H_
