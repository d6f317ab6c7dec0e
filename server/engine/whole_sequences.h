// Different sequences side by side in a step, each from its beginning to its end, over a cache that
// a run has to itself.
#ifndef VALUESCOPE_ENGINE_WHOLE_SEQUENCES_H_
#define VALUESCOPE_ENGINE_WHOLE_SEQUENCES_H_

#include <c10/core/Device.h>

#include <cstdint>
#include <vector>

#include "engine/sequence_copies.h"
#include "model/step.h"

namespace valuescope::engine {

struct WholeSequences {
  std::vector<std::vector<int64_t>> ids;  // of each, at least one

  int64_t count() const { return static_cast<int64_t>(ids.size()); }
  int64_t longest() const;
  // Of the cache, in blocks of SequenceCopies::kBlockTokens: as many for each as the longest has.
  int64_t blocks_of_each() const;
  int64_t cache_blocks() const { return count() * blocks_of_each(); }

  // A step of them, one behind the other. `wanted`, of each: positions whose logits are needed.
  model::StepBatch Batch(const std::vector<std::vector<int64_t>>& wanted, c10::Device device) const;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_WHOLE_SEQUENCES_H_
