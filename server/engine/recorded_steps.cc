#include "engine/recorded_steps.h"

#include <algorithm>
#include <bit>

namespace valuescope::engine {
namespace {

// A step that was run so often is recorded: not before, because what is set up at first use cannot
// be recorded, and tables that come and go would cost more than they bring.
constexpr int kTimesBefore = 2;
// Each holds a few megabytes of a device.
constexpr size_t kMostRecordings = 64;

void AddTo(std::vector<int64_t>& key, const at::Tensor& table) {
  key.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(table.const_data_ptr())));
  for (const int64_t extent : table.sizes()) key.push_back(extent);
}

void AddTo(std::vector<int64_t>& key, const model::AddStage& stage) {
  AddTo(key, stage.active);
  AddTo(key, stage.rows);
  key.push_back(static_cast<int64_t>(stage.only_adds));
}

void AddTo(std::vector<int64_t>& key, const model::ScaleOrSetStage& stage) {
  AddTo(key, stage.active);
  AddTo(key, stage.factors);
  AddTo(key, stage.values);
}

void AddTo(std::vector<int64_t>& key, const model::ProjectStage& stage) {
  AddTo(key, stage.active);
  AddTo(key, stage.basis);
  AddTo(key, stage.ranks);
  AddTo(key, stage.kept);
  AddTo(key, stage.targets);
}

}  // namespace

int64_t RecordedExtent(int64_t count, int64_t most) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count)));
  const int64_t between = power / 4 * 3;
  return std::min(most, count <= between ? between : power);
}

RecordedSteps::Key RecordedSteps::KeyOf(const model::StepBatch& batch,
                                        const model::StepProgram& program) {
  Key key = {batch.token_ids.size(0), batch.block_tables.size(1)};
  for (size_t wire = 0; wire < program.size(); ++wire) {
    for (const model::Stage& stage : program[wire].stages) {
      key.push_back(static_cast<int64_t>(wire));
      key.push_back(static_cast<int64_t>(stage.index()));
      std::visit([&key](const auto& each) { AddTo(key, each); }, stage);
    }
  }
  return key;
}

at::Tensor RecordedSteps::Run(const model::StepBatch& batch, model::KvCache& cache,
                              const model::StepProgram& program, bool repeatable) {
  if (recorder_ == nullptr || !repeatable) return transformer_.Forward(batch, cache, program);
  Recording& recording = recordings_[KeyOf(batch, program)];
  recording.last_used = ++runs_;
  const bool recorded = recording.work != nullptr || (recording.times_seen++ >= kTimesBefore &&
                                                      Record(recording, batch, cache, program));
  if (!recorded) {
    ForgetOldest();
    return transformer_.Forward(batch, cache, program);
  }
  recording.work->Repeat();
  ++num_repeated_;
  return *recording.logits;
}

bool RecordedSteps::Record(Recording& recording, const model::StepBatch& batch,
                           model::KvCache& cache, const model::StepProgram& program) {
  auto logits = std::make_shared<at::Tensor>();
  try {
    recording.work = recorder_->Record([this, batch, &cache, program, logits] {
      *logits = transformer_.Forward(batch, cache, program);
    });
  } catch (const std::exception&) {
    // Where the device itself failed, the run that follows says so.
    recorder_.reset();
    return false;
  }
  recording.logits = std::move(logits);
  return true;
}

void RecordedSteps::ForgetOldest() {
  if (recordings_.size() <= kMostRecordings) return;
  recordings_.erase(std::min_element(
      recordings_.begin(), recordings_.end(),
      [](const auto& a, const auto& b) { return a.second.last_used < b.second.last_used; }));
}

}  // namespace valuescope::engine
