#include "engine/sequence_copies.h"

#include <ATen/ATen.h>

#include <vector>

#include "engine/neuron_target.h"

namespace valuescope::engine {

model::StepBatch BatchOf(const SequenceCopies& copies, std::span<const int64_t> ids,
                         std::span<const int64_t> wanted, c10::Device device) {
  constexpr int64_t kBlock = SequenceCopies::kBlockTokens;
  const int64_t shared = copies.shared_blocks(), own = copies.own_blocks();
  std::vector<int64_t> token_ids, positions, sequences, slots, tables, logits;
  for (int64_t copy = 0; copy < copies.count; ++copy) {
    const int64_t first_block = copies.first_own_block + copy * own;
    for (int64_t position = copies.begin; position < copies.end; ++position) {
      token_ids.push_back(ids[static_cast<size_t>(position)]);
      positions.push_back(position);
      sequences.push_back(copy);
      slots.push_back((first_block - shared) * kBlock + position);
    }
    for (int64_t block = 0; block < shared; ++block) tables.push_back(block);
    for (int64_t block = 0; block < own; ++block) tables.push_back(first_block + block);
    for (const int64_t position : wanted) {
      logits.push_back(copy * copies.length() + position - copies.begin);
    }
  }
  const at::TensorOptions options = at::TensorOptions().dtype(at::kLong).device(device);
  return {.token_ids = OnDevice(token_ids, device),
          .positions = OnDevice(positions, device),
          .sequences = OnDevice(sequences, device),
          .cache_slots = OnDevice(slots, device),
          .block_tables = OnDevice(tables, device).view({copies.count, shared + own}),
          .table_rows = at::zeros({copies.count * copies.length()}, options),
          .logit_tokens = OnDevice(logits, device),
          .most_tokens = copies.length()};
}

at::Tensor Keep(model::Wire wire, int64_t begin, int64_t end,
                const model::Architecture& architecture, c10::Device device,
                model::StepProgram& program) {
  const at::TensorOptions options = at::TensorOptions().device(device);
  const at::Tensor rows = at::arange(end - begin, options.dtype(at::kLong));
  const at::Tensor kept =
      at::zeros({end - begin, model::WidthOf(wire.site, architecture)}, options.dtype(at::kFloat));
  program[static_cast<size_t>(WireIndex(wire, architecture))].taps.push_back(
      {.operation = model::TapOperation::kCopy,
       .tokens = rows + begin,
       .rows = rows,
       .destination = kept});
  return kept;
}

void CopyFirstBlocks(const SequenceCopies& copies, int first, int last, model::KvCache& cache) {
  if (copies.begin % SequenceCopies::kBlockTokens == 0) return;
  for (int layer = first; layer <= last; ++layer) {
    for (std::vector<at::Tensor>* part : {&cache.keys, &cache.values}) {
      at::Tensor& blocks = (*part)[static_cast<size_t>(layer)];
      const at::Tensor clean = blocks[copies.shared_blocks()];
      for (int64_t copy = 0; copy < copies.count; ++copy) {
        blocks[copies.first_own_block + copy * copies.own_blocks()].copy_(clean);
      }
    }
  }
}

}  // namespace valuescope::engine
