// One step of the forward pass as data. A step runs a ragged batch of tokens: prompt chunks and
// single decoded tokens of many requests side by side. Whatever users want changed or read on the
// way is in tables: each token carries the index of its intervention row, row 0 meaning "nothing",
// and taps name the tokens they read. Steps never carry code.
#ifndef VALUESCOPE_MODEL_STEP_H_
#define VALUESCOPE_MODEL_STEP_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace valuescope::model {

// The tokens of a step. All index tensors live on the model's device; shapes do not depend on
// values.
struct StepBatch {
  at::Tensor token_ids;    // [num_tokens] int64
  at::Tensor positions;    // [num_tokens] int64, 0-based place in its sequence
  at::Tensor sequences;    // [num_tokens] int64, row of block_tables
  at::Tensor cache_slots;  // [num_tokens] int64, block * block_size + offset where this token's key
                           // and value go
  at::Tensor
      block_tables;       // [num_sequences, max_blocks] int64, cache blocks of a sequence in order
  at::Tensor table_rows;  // [num_tokens] int64, intervention row; 0 is nothing
  at::Tensor
      logit_tokens;  // [num_logits] int64, tokens (indices into the step) whose logits are needed
};

// Adds rows[table_rows[t]] to token t, in float32, rounded once to the model's dtype. Tokens of row
// 0 keep their bits.
struct AddStage {
  at::Tensor rows;  // [capacity, width] float32, on the device; row 0 is never read
};

enum class TapOperation : uint8_t {
  kCopy,  // destination[rows[j]] = x[tokens[j]]             destination float32 [capacity, width]
  kSum,   // destination[rows[j]] += x[tokens[j]], in order  destination float64 [capacity, width]
  kMax,   // destination[rows[j]] = max(., x[tokens[j]])     destination float32 [capacity, width]
};

// Reads tokens of one wire. Accumulation goes token by token in the order given, so that a response
// split over steps sums to the same bits as in one step.
struct TapStage {
  TapOperation operation = TapOperation::kCopy;
  at::Tensor tokens;       // [n] int64, indices into the step
  at::Tensor rows;         // [n] int64, rows of destination
  at::Tensor destination;  // [capacity, width]
};

// What happens on one wire: first the additions in order, then the taps (a capture sees the edited
// value).
struct WireProgram {
  std::vector<AddStage> additions;
  std::vector<TapStage> taps;

  bool empty() const { return additions.empty() && taps.empty(); }
};

// Indexed by WireIndex (model/site.h); an empty program costs nothing.
using StepProgram = std::vector<WireProgram>;

// Asks a step for what gradients need: it then runs with autograd, through the plain operators, and
// leaves the activations of some wires as parts of its graph. The step's cache must be its own,
// because the graph holds what was written to it.
struct GradientTape {
  std::vector<int> wires;          // WireIndex of what is differentiated by or with
  std::vector<at::Tensor> values;  // set by the step, one a wire: [num_tokens, width]
  // The block whose norm behind the MLP (post_norms) divides by its clean factor, taken as a
  // constant: a scale-invariant norm would hide what its own block's neurons do. -1: none.
  int held_post_norm = -1;
};

// d scalar / d each of `inputs`, which belong to the graph that made `scalar` (a tensor of one
// element). The graph is gone after it unless `keep_graph`.
std::vector<at::Tensor> GradientsOf(const at::Tensor& scalar, const std::vector<at::Tensor>& inputs,
                                    bool keep_graph = false);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_STEP_H_
