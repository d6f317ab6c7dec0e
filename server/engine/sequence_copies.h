// Copies of one sequence side by side in a step, over a cache that a run has to itself. Copies that
// begin behind the sequence's beginning share the blocks before: those of a pass that ran it from
// there.
#ifndef VALUESCOPE_ENGINE_SEQUENCE_COPIES_H_
#define VALUESCOPE_ENGINE_SEQUENCE_COPIES_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <span>

#include "model/architecture.h"
#include "model/kv_cache.h"
#include "model/site.h"
#include "model/step.h"

namespace valuescope::engine {

struct SequenceCopies {
  static constexpr int64_t kBlockTokens = 16;  // of the cache

  int64_t count = 1;
  int64_t begin = 0, end = 0;   // positions begin .. end - 1 run, of each copy
  int64_t first_own_block = 0;  // the copies' own blocks, one copy's behind the other's

  // Blocks 0, 1, ... of the cache, which hold positions before `begin` alone.
  int64_t shared_blocks() const { return begin / kBlockTokens; }
  // Of a copy: the first may begin with positions before `begin`.
  int64_t own_blocks() const { return (end + kBlockTokens - 1) / kBlockTokens - shared_blocks(); }
  int64_t length() const { return end - begin; }
  int64_t cache_blocks() const { return first_own_block + count * own_blocks(); }
};

// A step of the copies of a sequence with these `ids`, at least `end`. `wanted`, positions from
// `begin` on, are those whose logits are needed, of each copy.
model::StepBatch BatchOf(const SequenceCopies& copies, std::span<const int64_t> ids,
                         std::span<const int64_t> wanted, c10::Device device);

// Has a pass of one sequence from its beginning keep what `wire` carries at positions `begin` ..
// `end` - 1: [end - begin, width] float32, filled by the pass.
at::Tensor Keep(model::Wire wire, int64_t begin, int64_t end,
                const model::Architecture& architecture, c10::Device device,
                model::StepProgram& program);

// Gives every copy, in layers `first` .. `last` of the cache, what the block that `begin` stands in
// holds of the positions before it.
void CopyFirstBlocks(const SequenceCopies& copies, int first, int last, model::KvCache& cache);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_SEQUENCE_COPIES_H_
