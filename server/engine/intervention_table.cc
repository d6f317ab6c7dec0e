#include "engine/intervention_table.h"

#include <ATen/ops/full.h>

#include <algorithm>
#include <type_traits>

#include "base/check.h"

namespace valuescope::engine {
namespace {

constexpr size_t kScaleOrSetKind = 1, kProjectKind = 2;  // model::Stage::index()
static_assert(std::is_same_v<std::variant_alternative_t<kScaleOrSetKind, model::Stage>,
                             model::ScaleOrSetStage>);
static_assert(
    std::is_same_v<std::variant_alternative_t<kProjectKind, model::Stage>, model::ProjectStage>);

// What rows hold that nobody has: added, it changes no bit; as a factor it is 0.
constexpr double kNothing = -0.0;

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

// How many rows the tables of a stage have room for.
int64_t CapacityOf(const model::Stage& stage) {
  return std::visit(
      [](const auto& each) { return each.active.defined() ? each.active.size(0) : 0; }, stage);
}

// Makes row `row`, for which there is room, one that does nothing.
void Silence(model::Stage& stage, int64_t row) {
  std::visit([row](auto& each) { each.active[row].zero_(); }, stage);
  if (auto* add = std::get_if<model::AddStage>(&stage)) add->rows[row].fill_(kNothing);
}

bool PreservesNorm(const model::Stage& edit) {
  return std::visit(
             [](const auto& each) { return each.active.template const_data_ptr<uint8_t>()[0]; },
             edit) == model::kPreservesNorm;
}

// Beyond the row there is at least one, and the last is nobody's.
int64_t CapacityFor(int64_t row) {
  int64_t capacity = InterventionTables::kLeastCapacity;
  while (capacity <= row + 1) capacity *= 2;
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
  const at::Tensor larger = at::full(shape, kNothing, edit.options().device(device));
  if (table.defined()) Corner(larger, table.sizes()).copy_(table);
  return larger;
}

}  // namespace

InterventionTables::Extent InterventionTables::Extent::Of(const model::Stage& stage) {
  if (const auto* project = std::get_if<model::ProjectStage>(&stage)) {
    if (!project->basis.defined()) return {};
    return {.capacity = project->basis.size(0),
            .width = project->basis.size(2),
            .rank = project->basis.size(1)};
  }
  const auto* add = std::get_if<model::AddStage>(&stage);
  const at::Tensor& rows =
      add != nullptr ? add->rows : std::get<model::ScaleOrSetStage>(stage).factors;
  if (!rows.defined()) return {};
  return {.capacity = rows.size(0), .width = rows.size(1)};
}

// As the members of the stage add up.
int64_t InterventionTables::Extent::bytes(size_t kind) const {
  constexpr auto kFloat = static_cast<int64_t>(sizeof(float));
  int64_t of_row = 1 + width * kFloat;  // AddStage
  if (kind == kScaleOrSetKind) of_row += width * kFloat;
  if (kind == kProjectKind) {
    of_row =
        1 + rank * width * kFloat + static_cast<int64_t>(sizeof(int64_t)) + kFloat + rank * kFloat;
  }
  return capacity * of_row;
}

int64_t InterventionTables::LowestFreeRow(int64_t from) const {
  int64_t row = from;
  for (auto live = rows_.lower_bound(from); live != rows_.end() && live->first == row; ++live) {
    ++row;
  }
  return row;
}

int64_t InterventionTables::BytesWith(const CompiledInterventions& compiled) const {
  return BytesWithSets(compiled, 1, compiled.num_sets() + 1);
}

// Of all tables, once the sets first .. end - 1 have rows. They have no extents that could
// overflow: each is a part of a message times a number of rows.
int64_t InterventionTables::BytesWithSets(const CompiledInterventions& compiled, uint64_t first,
                                          uint64_t end) const {
  std::map<StageKey, Extent> grown;
  std::set<std::string> fresh;
  int64_t row = 0;
  for (uint64_t active = first; active < end; ++active) {
    const std::string& digest = compiled.ContentDigest(active);
    if (digest.empty() || rows_by_digest_.contains(digest) || !fresh.insert(digest).second) {
      continue;
    }
    row = LowestFreeRow(row + 1);
    std::map<int, int> ordinals;
    for (const EditShape& shape : compiled.ShapesOf(active)) {
      const StageKey key{shape.wire, ordinals[shape.wire]++, shape.kind};
      const auto [place, is_new] = grown.try_emplace(key);
      Extent& extent = place->second;
      if (is_new) {
        if (const auto table = tables_.find(key); table != tables_.end()) {
          extent = Extent::Of(table->second.stage);
        } else if (const auto kept = kept_.find(key); kept != kept_.end()) {
          extent = Extent::Of(kept->second.stage);
        }
      }
      extent.capacity = std::max(extent.capacity, CapacityFor(row));
      extent.width = std::max(extent.width, shape.width);
      extent.rank = std::max(extent.rank, shape.rank);
    }
  }
  int64_t total = bytes();
  for (const auto& [key, extent] : grown) {
    const auto table = tables_.find(key);
    if (table != tables_.end()) total -= table->second.bytes;
    total += extent.bytes(std::get<2>(key));
  }
  return total;
}

model::Stage InterventionTables::StartOf(const StageKey& key, const model::Stage& edit) const {
  const auto kept = kept_.find(key);
  return kept == kept_.end() ? WithoutTables(edit) : kept->second.stage;
}

void InterventionTables::Write(const StageKey& key, int64_t row, const model::Stage& edit) {
  Table& table = tables_[key];
  if (table.rows.empty()) {
    table.stage = StartOf(key, edit);
    kept_.erase(key);
  }
  table.rows.insert(row);
  if (PreservesNorm(edit)) table.preserving.insert(row);
  model::Stage source = edit, grown = table.stage;
  const std::vector<at::Tensor*> sources = TablesOf(source), destinations = TablesOf(grown);
  for (size_t i = 0; i < sources.size(); ++i) {
    *destinations[i] = WithRoom(*destinations[i], *sources[i], row, device_);
    std::vector<int64_t> one_row = sources[i]->sizes().vec();
    // Not waiting is safe: what is not pinned is read before the call returns.
    Corner(destinations[i]->narrow(0, row, 1), one_row).copy_(*sources[i], /*non_blocking=*/true);
  }
  table.bytes = 0;
  for (const at::Tensor* each : destinations) table.bytes += static_cast<int64_t>(each->nbytes());
  table.stage = std::move(grown);
  SetOnlyAdds(table);
}

void InterventionTables::SetOnlyAdds(Table& table) {
  if (auto* add = std::get_if<model::AddStage>(&table.stage)) {
    add->only_adds = table.preserving.empty();
  }
}

bool InterventionTables::MakeRoom(const CompiledInterventions& compiled, uint64_t first,
                                  uint64_t end) {
  if (BytesWithSets(compiled, first, end) + kept_bytes() > max_bytes_) kept_.clear();
  return BytesWithSets(compiled, first, end) <= max_bytes_;
}

std::optional<int64_t> InterventionTables::AcquireRow(const CompiledInterventions& compiled,
                                                      uint64_t active) {
  if (!MakeRoom(compiled, active, active + 1)) return std::nullopt;
  return TakeRow(compiled, active);
}

std::optional<std::vector<int64_t>> InterventionTables::AcquireRows(
    const CompiledInterventions& compiled) {
  const uint64_t end = compiled.num_sets() + 1;
  if (!MakeRoom(compiled, 1, end)) return std::nullopt;
  std::vector<int64_t> rows(end, 0);
  try {
    for (uint64_t active = 1; active < end; ++active) rows[active] = TakeRow(compiled, active);
  } catch (...) {
    for (const int64_t row : rows) ReleaseRow(row);
    throw;
  }
  return rows;
}

int64_t InterventionTables::TakeRow(const CompiledInterventions& compiled, uint64_t active) {
  const std::string& digest = compiled.ContentDigest(active);
  if (digest.empty()) return 0;
  if (const auto found = rows_by_digest_.find(digest); found != rows_by_digest_.end()) {
    ++rows_.at(found->second).holders;
    return found->second;
  }
  const int64_t row = LowestFreeRow();
  Row& owned = rows_[row];
  try {
    owned.digest = digest;
    rows_by_digest_.emplace(digest, row);
    owned.touched = compiled.LayersTouched(active);
    WriteRow(row, compiled.EditsOf(active));
  } catch (...) {
    ReleaseRow(row);
    throw;
  }
  return row;
}

void InterventionTables::WriteRow(int64_t row, const std::vector<WireEdit>& edits) {
  std::map<int, int> ordinals;  // of the next edit, by wire
  for (const WireEdit& edit : edits) {
    const StageKey key{edit.wire, ordinals[edit.wire]++, edit.stage.index()};
    rows_.at(row).tables.push_back(key);
    Write(key, row, edit.stage);
  }
}

void InterventionTables::ReleaseRow(int64_t row) {
  const auto found = rows_.find(row);
  if (found == rows_.end() || --found->second.holders > 0) return;
  for (const StageKey& key : found->second.tables) {
    const auto table = tables_.find(key);
    // Where acquiring ended half-way, the last one may be missing.
    if (table == tables_.end()) continue;
    table->second.rows.erase(row);
    table->second.preserving.erase(row);
    // Where acquiring ended half-way, there may be no room for the row, or none at all.
    const int64_t capacity = CapacityOf(table->second.stage);
    const bool last = table->second.rows.empty(), keep = keeps_addresses_ && capacity > 0;
    if (row < capacity && (!last || keep)) {
      Silence(table->second.stage, row);
      SetOnlyAdds(table->second);
    }
    if (!last) continue;
    if (keep) kept_.insert_or_assign(key, std::move(table->second));
    tables_.erase(table);
  }
  rows_by_digest_.erase(found->second.digest);
  rows_.erase(found);
  ++rows_freed_;
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

int64_t InterventionTables::bytes() const { return BytesOf(tables_); }
int64_t InterventionTables::kept_bytes() const { return BytesOf(kept_); }

int64_t InterventionTables::BytesOf(const std::map<StageKey, Table>& tables) {
  int64_t bytes = 0;
  for (const auto& [key, table] : tables) bytes += table.bytes;
  return bytes;
}

}  // namespace valuescope::engine
