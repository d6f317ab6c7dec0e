#include "engine/whole_sequences.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "engine/neuron_target.h"

namespace valuescope::engine {

int64_t WholeSequences::longest() const {
  size_t longest = 0;
  for (const std::vector<int64_t>& own : ids) longest = std::max(longest, own.size());
  return static_cast<int64_t>(longest);
}

int64_t WholeSequences::blocks_of_each() const {
  return SequenceCopies{.end = longest()}.own_blocks();
}

model::StepBatch WholeSequences::Batch(const std::vector<std::vector<int64_t>>& wanted,
                                       c10::Device device) const {
  const int64_t blocks = blocks_of_each();
  std::vector<int64_t> token_ids, positions, sequences, slots, logits;
  for (int64_t s = 0; s < count(); ++s) {
    const std::vector<int64_t>& own = ids[static_cast<size_t>(s)];
    const auto first = static_cast<int64_t>(token_ids.size());
    for (const int64_t position : wanted[static_cast<size_t>(s)])
      logits.push_back(first + position);
    token_ids.insert(token_ids.end(), own.begin(), own.end());
    for (int64_t position = 0; position < static_cast<int64_t>(own.size()); ++position) {
      positions.push_back(position);
      sequences.push_back(s);
      slots.push_back(s * blocks * SequenceCopies::kBlockTokens + position);
    }
  }
  const at::TensorOptions options = at::TensorOptions().dtype(at::kLong).device(device);
  return {.token_ids = OnDevice(token_ids, device),
          .positions = OnDevice(positions, device),
          .sequences = OnDevice(sequences, device),
          .cache_slots = OnDevice(slots, device),
          .block_tables = at::arange(cache_blocks(), options).view({count(), blocks}),
          .table_rows = at::zeros({static_cast<int64_t>(token_ids.size())}, options),
          .logit_tokens = OnDevice(logits, device),
          .most_tokens = longest()};
}

}  // namespace valuescope::engine
