// What the forward pass gets of a step: the tokens of its sequences in index tensors, and the edits
// and taps of their wires. A decode step is padded to the size of a recording, where steps are
// recorded: with sequences of one token each, whose key and value go to a block that nobody has.
#ifndef VALUESCOPE_ENGINE_STEP_ASSEMBLY_H_
#define VALUESCOPE_ENGINE_STEP_ASSEMBLY_H_

#include <array>
#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "engine/intervention_table.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/step_buffers.h"
#include "model/architecture.h"
#include "model/step.h"

namespace valuescope::engine {

// What a sequence runs in a step: tokens first .. first + count - 1.
struct StepPart {
  Sequence* sequence = nullptr;  // not null
  int64_t first = 0;
  int64_t count = 0;
  const std::vector<int64_t>* blocks = nullptr;  // of the cache, in order; not null
};

// The buffers keep their addresses from step to step.
class StepAssembly {
 public:
  // `records`: whether decode steps are padded. The cache then has a block behind those that are
  // scheduled. Throws where there is no memory for the buffers.
  StepAssembly(const model::Architecture& architecture, const SchedulerOptions& scheduling,
               bool records, c10::Device device);

  // Of the next step, whose parts are not none. What the others return holds until the next Fill.
  void Fill(const std::vector<StepPart>& parts, const InterventionTables& tables);

  model::StepBatch Batch() const;
  const model::StepProgram& program() const { return program_; }
  // Whether the batch is padded, so that a recording may serve.
  bool repeatable() const { return shape_.repeatable; }
  // Rows of logits that its sequences want, which come before those of the padding.
  int64_t num_tokens() const { return num_tokens_; }  // without padding
  bool only_prompts() const { return prompt_tokens_ == num_tokens_; }
  int64_t num_logits() const { return num_logits_; }

  // Counts the step as one that ran.
  void CountInto(EngineStatistics& statistics) const;

 private:
  // How many sequences and blocks of each a step has, padding included.
  struct Shape {
    int64_t sequences = 0;
    int64_t blocks = 0;
    bool repeatable = false;
  };

  Shape ShapeOf(const std::vector<StepPart>& parts) const;
  void Clear();
  void AddBlocks(size_t index, const StepPart& part);
  void AddTokens(size_t index, const StepPart& part);
  void Pad(int64_t first);
  void CountTokens(const std::vector<StepPart>& parts);
  void CountRows(const InterventionTables& tables);

  const int64_t padding_block_;
  const bool records_;
  const Shape most_;  // of any step
  StepBuffers buffers_;
  model::StepProgram program_;

  // Of this step.
  Shape shape_;
  int64_t num_tokens_ = 0;  // without padding
  int64_t num_logits_ = 0;
  int64_t most_tokens_ = 0;    // of a sequence
  int64_t prompt_tokens_ = 0;  // those of prompts and given responses; others were generated
  int64_t distinct_rows_ = 0;
  std::array<int64_t, kNumOperations> applied_{};
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_STEP_ASSEMBLY_H_
