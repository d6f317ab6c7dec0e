#include "engine/intervention_table.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/check.h"

namespace valuescope::engine {
namespace {

// Few: a row of 64 directions on all layers of a large model is hundreds of megabytes.
constexpr int64_t kLeastCapacity = 4;

// The tables of a stage; the first axis of each is rows.
std::vector<at::Tensor*> TablesOf(model::AddStage& stage) { return {&stage.active, &stage.rows}; }
std::vector<at::Tensor*> TablesOf(model::ScaleOrSetStage& stage) {
  return {&stage.active, &stage.factors, &stage.values};
}
std::vector<at::Tensor*> TablesOf(model::ProjectStage& stage) {
  return {&stage.active, &stage.basis, &stage.ranks, &stage.kept, &stage.targets};
}
std::vector<at::Tensor*> TablesOf(model::Stage& stage) {
  return std::visit([](auto& each) { return TablesOf(each); }, stage);
}

// A stage of the same kind, whose tables are still to be made.
model::Stage WithoutTables(const model::Stage& stage) {
  return std::visit([](auto each) -> model::Stage { return decltype(each){}; }, stage);
}

at::Tensor& ActiveOf(model::Stage& stage) {
  return std::visit([](auto& each) -> at::Tensor& { return each.active; }, stage);
}

int64_t CapacityFor(int64_t row) {
  int64_t capacity = kLeastCapacity;
  while (capacity <= row) capacity *= 2;
  return capacity;
}

// The corner of `table` that `shape` covers.
at::Tensor Corner(at::Tensor table, at::IntArrayRef shape) {
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    table = table.narrow(static_cast<int64_t>(axis), 0, shape[axis]);
  }
  return table;
}

// The extents of `table`, which may be undefined, once it has room for row `row` of those of `edit`
// [1, ...].
std::vector<int64_t> ShapeWithRoom(const at::Tensor& table, const at::Tensor& edit, int64_t row) {
  std::vector<int64_t> shape = edit.sizes().vec();
  shape[0] = CapacityFor(row);
  if (!table.defined()) return shape;
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    shape[axis] = std::max(shape[axis], table.size(static_cast<int64_t>(axis)));
  }
  return shape;
}

// `table` with room for row `row` of the extents of `edit` [1, ...]; itself where there is room.
at::Tensor WithRoom(const at::Tensor& table, const at::Tensor& edit, int64_t row,
                    c10::Device device) {
  const std::vector<int64_t> shape = ShapeWithRoom(table, edit, row);
  if (table.defined() && table.sizes() == at::IntArrayRef(shape)) return table;
  const at::Tensor larger = at::zeros(shape, edit.options().device(device));
  if (table.defined()) Corner(larger, table.sizes()).copy_(table);
  return larger;
}

}  // namespace

int64_t InterventionTables::TakeLowestFreeRow() {
  int64_t row = 1;
  for (const auto& [live, unused] : rows_) {
    if (live != row) break;
    ++row;
  }
  rows_[row];
  return row;
}

// Of all tables, once `edits` are row `row`. They have no extents that could overflow: each is a
// part of a message times a number of rows.
int64_t InterventionTables::BytesAfter(int64_t row, const std::vector<WireEdit>& edits) const {
  int64_t total = bytes();
  std::map<int, int> ordinals;
  for (const WireEdit& edit : edits) {
    const auto found = tables_.find({edit.wire, ordinals[edit.wire]++, edit.stage.index()});
    const bool is_new = found == tables_.end();
    if (!is_new) total -= found->second.bytes;
    model::Stage source = edit.stage;
    model::Stage table = is_new ? WithoutTables(edit.stage) : found->second.stage;
    const std::vector<at::Tensor*> sources = TablesOf(source), tables = TablesOf(table);
    for (size_t i = 0; i < sources.size(); ++i) {
      int64_t bytes = static_cast<int64_t>(sources[i]->element_size());
      for (const int64_t extent : ShapeWithRoom(*tables[i], *sources[i], row)) bytes *= extent;
      total += bytes;
    }
  }
  return total;
}

void InterventionTables::Write(const StageKey& key, int64_t row, const model::Stage& edit) {
  Table& table = tables_[key];
  table.rows.insert(row);
  if (table.rows.size() == 1) table.stage = WithoutTables(edit);
  model::Stage source = edit, grown = table.stage;
  const std::vector<at::Tensor*> sources = TablesOf(source), destinations = TablesOf(grown);
  for (size_t i = 0; i < sources.size(); ++i) {
    *destinations[i] = WithRoom(*destinations[i], *sources[i], row, device_);
    std::vector<int64_t> one_row = sources[i]->sizes().vec();
    Corner(destinations[i]->narrow(0, row, 1), one_row).copy_(*sources[i]);
  }
  table.bytes = 0;
  for (const at::Tensor* each : destinations) table.bytes += static_cast<int64_t>(each->nbytes());
  table.stage = std::move(grown);
}

int64_t InterventionTables::AcquireRow(const CompiledInterventions& compiled, uint64_t active) {
  const std::vector<WireEdit> edits = compiled.EditsOf(active);
  if (edits.empty()) return 0;
  const int64_t row = TakeLowestFreeRow();
  try {
    if (BytesAfter(row, edits) > max_bytes_) throw TablesFull();
    Row& owned = rows_.at(row);
    owned.touched = compiled.LayersTouched(active);
    std::map<int, int> ordinals;  // of the next edit, by wire
    for (const WireEdit& edit : edits) {
      const StageKey key{edit.wire, ordinals[edit.wire]++, edit.stage.index()};
      owned.tables.push_back(key);
      Write(key, row, edit.stage);
    }
  } catch (...) {
    ReleaseRow(row);
    throw;
  }
  return row;
}

void InterventionTables::ReleaseRow(int64_t row) {
  const auto found = rows_.find(row);
  if (found == rows_.end()) return;
  for (const StageKey& key : found->second.tables) {
    const auto table = tables_.find(key);
    // Where acquiring ended half-way, the last one may be missing.
    if (table == tables_.end()) continue;
    table->second.rows.erase(row);
    if (table->second.rows.empty()) {
      tables_.erase(table);
    } else if (at::Tensor& active = ActiveOf(table->second.stage); row < active.size(0)) {
      active[row].zero_();
    }
  }
  rows_.erase(found);
}

void InterventionTables::AddTo(model::StepProgram& program) const {
  // In the order of the keys: a wire's ordinals ascend.
  for (const auto& [key, table] : tables_) {
    program[static_cast<size_t>(std::get<0>(key))].stages.push_back(table.stage);
  }
}

void InterventionTables::CountApplied(std::span<const int64_t> rows,
                                      std::array<int64_t, kNumOperations>& applied) const {
  for (const int64_t row : rows) {
    const auto found = rows_.find(row);
    if (found == rows_.end()) continue;
    for (size_t i = 0; i < applied.size(); ++i) applied[i] += found->second.touched[i];
  }
}

int64_t InterventionTables::bytes() const {
  int64_t bytes = 0;
  for (const auto& [key, table] : tables_) bytes += table.bytes;
  return bytes;
}

}  // namespace valuescope::engine
