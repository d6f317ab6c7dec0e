#include "engine/step_assembly.h"

#include <algorithm>
#include <span>

#include "engine/recorded_steps.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

// Of a step that is recorded, so that short sequences share recordings.
constexpr int64_t kLeastRecordedBlocks = 4;

}  // namespace

StepAssembly::StepAssembly(const model::Architecture& architecture,
                           const SchedulerOptions& scheduling, bool records, c10::Device device)
    : padding_block_(scheduling.num_blocks),
      records_(records),
      most_{.sequences = std::min(scheduling.max_batch_rows, scheduling.max_step_tokens),
            .blocks = std::min(scheduling.num_blocks,
                               (architecture.max_positions + kBlockSize - 1) / kBlockSize)},
      buffers_(scheduling.max_step_tokens, most_.sequences, most_.blocks, device),
      program_(static_cast<size_t>(model::NumWires(architecture))) {}

void StepAssembly::Fill(const std::vector<StepPart>& parts, const InterventionTables& tables) {
  shape_ = ShapeOf(parts);
  Clear();
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t offset = buffers_.token_ids.size();
    AddBlocks(i, parts[i]);
    AddTokens(i, parts[i]);
    Sequence& sequence = *parts[i].sequence;
    if (!sequence.has_taps()) continue;
    sequence.taps().AddTo(program_, parts[i].first, parts[i].count, offset, sequence.TapEnd());
  }
  CountTokens(parts);
  Pad(static_cast<int64_t>(parts.size()));
  tables.AddTo(program_);
  CountRows(tables);
}

// A decode step is as large as a recording of it, if anything is recorded.
StepAssembly::Shape StepAssembly::ShapeOf(const std::vector<StepPart>& parts) const {
  Shape shape{.sequences = static_cast<int64_t>(parts.size()), .blocks = 1, .repeatable = records_};
  for (const StepPart& part : parts) {
    shape.blocks = std::max(shape.blocks, static_cast<int64_t>(part.blocks->size()));
    shape.repeatable &=
        part.count == 1 && part.sequence->WantsLogits(part.first) && !part.sequence->has_taps();
  }
  if (!shape.repeatable) return shape;
  shape.sequences = RecordedExtent(shape.sequences, most_.sequences);
  shape.blocks = RecordedExtent(
      std::max(shape.blocks, std::min(kLeastRecordedBlocks, most_.blocks)), most_.blocks);
  return shape;
}

void StepAssembly::Clear() {
  buffers_.Clear();
  buffers_.block_tables.FillZeros(shape_.sequences * shape_.blocks);
  for (model::WireProgram& wire : program_) {
    wire.stages.clear();
    wire.taps.clear();
  }
}

void StepAssembly::AddBlocks(size_t index, const StepPart& part) {
  const auto max_blocks = static_cast<size_t>(shape_.blocks);
  std::copy(part.blocks->begin(), part.blocks->end(),
            buffers_.block_tables.values().subspan(index * max_blocks).begin());
}

void StepAssembly::AddTokens(size_t index, const StepPart& part) {
  const Sequence& sequence = *part.sequence;
  for (int64_t position = part.first; position < part.first + part.count; ++position) {
    if (sequence.WantsLogits(position)) buffers_.logit_tokens.Push(buffers_.token_ids.size());
    buffers_.token_ids.Push(sequence.ids()[static_cast<size_t>(position)]);
    buffers_.positions.Push(position);
    buffers_.sequences.Push(static_cast<int64_t>(index));
    buffers_.cache_slots.Push((*part.blocks)[static_cast<size_t>(position / kBlockSize)] *
                                  kBlockSize +
                              position % kBlockSize);
    buffers_.table_rows.Push(sequence.RowAt(position));
  }
}

// Sequences `first` .. of the step's shape.
void StepAssembly::Pad(int64_t first) {
  for (int64_t s = first; s < shape_.sequences; ++s) {
    buffers_.logit_tokens.Push(buffers_.token_ids.size());
    buffers_.token_ids.Push(0);
    buffers_.positions.Push(0);
    buffers_.sequences.Push(s);
    buffers_.cache_slots.Push(padding_block_ * kBlockSize);
    buffers_.table_rows.Push(0);
  }
}

void StepAssembly::CountTokens(const std::vector<StepPart>& parts) {
  num_tokens_ = buffers_.token_ids.size();
  num_logits_ = buffers_.logit_tokens.size();
  most_tokens_ = prompt_tokens_ = 0;
  for (const StepPart& part : parts) {
    const Request& request = part.sequence->request();
    const auto given = static_cast<int64_t>(request.prompt.size() + request.given_response.size());
    prompt_tokens_ += std::clamp<int64_t>(given - part.first, 0, part.count);
    most_tokens_ = std::max(most_tokens_, part.count);
  }
}

void StepAssembly::CountRows(const InterventionTables& tables) {
  applied_.fill(0);
  tables.CountApplied(buffers_.table_rows.values(), applied_);
  const std::span<const int64_t> all = buffers_.table_rows.values();
  std::vector<int64_t> rows(all.begin(), all.end());
  std::erase(rows, 0);
  std::sort(rows.begin(), rows.end());
  distinct_rows_ = std::unique(rows.begin(), rows.end()) - rows.begin();
}

model::StepBatch StepAssembly::Batch() const {
  return {.token_ids = buffers_.token_ids.OnDevice(),
          .positions = buffers_.positions.OnDevice(),
          .sequences = buffers_.sequences.OnDevice(),
          .cache_slots = buffers_.cache_slots.OnDevice(),
          .block_tables = buffers_.block_tables.OnDevice().view({shape_.sequences, shape_.blocks}),
          .table_rows = buffers_.table_rows.OnDevice(),
          .logit_tokens = buffers_.logit_tokens.OnDevice(),
          .most_tokens = most_tokens_};
}

void StepAssembly::CountInto(EngineStatistics& statistics) const {
  ++statistics.steps;
  statistics.prompt_tokens += prompt_tokens_;
  statistics.batch_rows = num_tokens_;
  statistics.distinct_rows_last_step = distinct_rows_;
  statistics.distinct_rows_max = std::max(statistics.distinct_rows_max, distinct_rows_);
  for (size_t i = 0; i < applied_.size(); ++i) statistics.interventions_applied[i] += applied_[i];
  for (const model::WireProgram& wire : program_) {
    for (const model::TapStage& tap : wire.taps) {
      statistics.captured_bytes += tap.tokens.size(0) * tap.destination.size(1) * 4;
    }
  }
}

}  // namespace valuescope::engine
