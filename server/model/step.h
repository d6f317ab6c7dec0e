// One step of the forward pass as data. A step runs a ragged batch of tokens: prompt chunks and
// single decoded tokens of many requests side by side. Whatever users want changed or read on the
// way is in tables: each token carries the index of its intervention row, row 0 meaning "nothing",
// and taps name the tokens they read. Steps never carry code.
#ifndef VALUESCOPE_MODEL_STEP_H_
#define VALUESCOPE_MODEL_STEP_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <variant>
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
  // How many tokens the sequence with most tokens in this step has. A sequence's tokens have
  // consecutive positions.
  int64_t most_tokens = 0;
};

// Edits of one wire are stages: tables whose row table_rows[t] says what happens to token t. All
// arithmetic is float32, rounded once to the model's dtype after each stage. Tables are small: a
// row at or beyond a table's capacity is a row that the table does nothing to. What an inactive row
// holds is never read.
enum RowActivity : uint8_t {
  kInactive = 0,       // the token keeps its bits exactly
  kActs = 1,           // the stage edits the token
  kPreservesNorm = 2,  // acts, and the result y becomes y |x| / |y|; a zero y stays zero
};

// y = x + rows[r].
struct AddStage {
  at::Tensor active;  // [capacity] uint8, RowActivity; row 0 is inactive
  at::Tensor rows;    // [capacity, width] float32
  // Promises that no row preserves norms and that inactive ones, of which the last is one, hold
  // -0.0, which changes no bit of what it is added to: a GPU then adds without a look at `active`,
  // and the last row for what is beyond the table.
  bool only_adds = false;
};

// y_i = factors[r][i] x_i where that factor is not 0, else values[r][i]: scales and overwrites
// single elements, and the others keep their bits.
struct ScaleOrSetStage {
  at::Tensor active;   // [capacity] uint8
  at::Tensor factors;  // [capacity, width] float32
  at::Tensor values;   // [capacity, width] float32
};

// y = x + sum_k ((kept[r] - 1) <x, b_k> + targets[r][k]) b_k over the first ranks[r] rows b_k of
// basis[r], which are orthonormal: the projection on their span becomes kept times what it was,
// plus the targets.
struct ProjectStage {
  at::Tensor active;   // [capacity] uint8
  at::Tensor basis;    // [capacity, rank, width] float32
  at::Tensor ranks;    // [capacity] int64, 1 .. rank, at most kMostDirections
  at::Tensor kept;     // [capacity] float32
  at::Tensor targets;  // [capacity, rank] float32
};

inline constexpr int64_t kMostDirections = 64;

using Stage = std::variant<AddStage, ScaleOrSetStage, ProjectStage>;

enum class TapOperation : uint8_t {
  kCopy,  // destination[rows[j]] = x[tokens[j]]             destination float32 [capacity, width]
  kSum,   // destination[rows[j]] += x[tokens[j]], in order  destination float64 [capacity, width]
  kMax,   // destination[rows[j]] = max(., x[tokens[j]])     destination float32 [capacity, width]
  kNorm,  // destination[rows[j]] += |x[tokens[j]]|, in order   destination float64 [capacity, 1]
  kPositive,  // destination[rows[j]] += x[tokens[j]] > 0    destination float64 [capacity, width]
  // destination[rows[j]] += |x[tokens[j]]| of each element  destination float64 [capacity, width]
  kMagnitude,
};

// Reads tokens of one wire. Accumulation goes token by token in the order given, so that a response
// split over steps sums to the same bits as in one step.
struct TapStage {
  TapOperation operation = TapOperation::kCopy;
  at::Tensor tokens;       // [n] int64, indices into the step
  at::Tensor rows;         // [n] int64, rows of destination
  at::Tensor destination;  // [capacity, width]
  // [width of the destination] int64, elements of the activation; undefined: all of them.
  at::Tensor columns = {};
};

// What happens on one wire: first the edits in order, then the taps (a capture sees the edited
// value).
struct WireProgram {
  std::vector<Stage> stages;
  std::vector<TapStage> taps;

  bool empty() const { return stages.empty() && taps.empty(); }
};

// Indexed by WireIndex (model/site.h); an empty program costs nothing.
using StepProgram = std::vector<WireProgram>;

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_STEP_H_
