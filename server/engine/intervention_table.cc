// Long because rows are given out, written and given back over the same few tables, whose extents,
// memory and order of writing all three keep true together.
#include "engine/intervention_table.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/status_macros.h"
#include "engine/lowering.h"

namespace valuescope::engine {
namespace {

constexpr size_t kScaleOrSetKind = 1, kProjectKind = 2;  // model::Stage::index()
static_assert(std::is_same_v<std::variant_alternative_t<kScaleOrSetKind, model::Stage>,
                             model::ScaleOrSetStage>);
static_assert(
    std::is_same_v<std::variant_alternative_t<kProjectKind, model::Stage>, model::ProjectStage>);

// What rows hold that nobody has: added, it changes no bit; as a factor it is 0.
constexpr double kNothing = -0.0;

// A stage of the same kind, whose tables are still to be made.
model::Stage WithoutTables(const model::Stage& stage) {
  return std::visit([](auto each) -> model::Stage { return decltype(each){}; }, stage);
}

// How many rows the tables of a stage have room for.
int64_t CapacityOf(const model::Stage& stage) {
  return std::visit(
      [](const auto& each) { return each.active.defined() ? each.active.size(0) : 0; }, stage);
}

// Makes rows first .. first + count - 1, for which there is room, ones that do nothing.
void Silence(model::Stage& stage, int64_t first, int64_t count) {
  std::visit([&](auto& each) { each.active.narrow(0, first, count).zero_(); }, stage);
  if (auto* add = std::get_if<model::AddStage>(&stage)) {
    add->rows.narrow(0, first, count).fill_(kNothing);
  }
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

// What `edit` has for table number `index` of its stage: [1, ...].
at::Tensor RowOf(const WireEdit& edit, size_t index) {
  const at::Tensor& rows = *TablesOf(*edit.stage)[index];
  return rows.size(0) == 1 ? rows : rows.narrow(0, edit.row, 1);
}

// The end of the run that begins at `begin`: rows that follow each other and are equally large, so
// that one copy writes them.
using Rows = std::map<int64_t, WireEdit>;
Rows::const_iterator EndOfRun(Rows::const_iterator begin, Rows::const_iterator end) {
  const auto rank_of = [](const WireEdit& edit) {
    const auto* project = std::get_if<model::ProjectStage>(edit.stage);
    return project == nullptr ? 0 : project->basis.size(1);
  };
  auto next = std::next(begin);
  for (int64_t row = begin->first + 1;
       next != end && next->first == row && rank_of(next->second) == rank_of(begin->second);
       ++row) {
    ++next;
  }
  return next;
}

// Copies the rows of a run into a table; their bytes.
int64_t CopyRun(Rows::const_iterator begin, Rows::const_iterator end, size_t index,
                const at::Tensor& table) {
  std::vector<at::Tensor> rows;
  for (auto each = begin; each != end; ++each) rows.push_back(RowOf(each->second, index));
  const at::Tensor all = rows.size() == 1 ? rows.front() : at::cat(rows);
  const auto count = static_cast<int64_t>(rows.size());
  // Not waiting is safe: what is not pinned is read before the call returns.
  Corner(table.narrow(0, begin->first, count), all.sizes()).copy_(all, /*non_blocking=*/true);
  return static_cast<int64_t>(all.nbytes());
}

// Calls `visit` with the first and the number of each run of neighbours among ascending numbers.
template <typename Visit>
void ForEachRun(std::span<const int64_t> numbers, Visit visit) {
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    visit(numbers[begin], static_cast<int64_t>(end - begin));
    begin = end;
  }
}

}  // namespace

InterventionTables::InterventionTables(c10::Device device, MemoryLedger* memory,
                                       bool keeps_addresses)
    : device_(device), memory_(memory), keeps_addresses_(keeps_addresses) {}

// --- Extents
// --------------------------------------------------------------------------------------

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

void InterventionTables::Extent::Include(const model::Stage& edit, int64_t row) {
  const Extent of_edit = Of(edit);
  capacity = std::max(capacity, CapacityFor(row));
  width = std::max(width, of_edit.width);
  rank = std::max(rank, of_edit.rank);
}

// As the shapes add up.
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

std::vector<std::vector<int64_t>> InterventionTables::Extent::shapes(size_t kind) const {
  if (kind == kProjectKind) {
    return {{capacity}, {capacity, rank, width}, {capacity}, {capacity}, {capacity, rank}};
  }
  if (kind == kScaleOrSetKind) return {{capacity}, {capacity, width}, {capacity, width}};
  return {{capacity}, {capacity, width}};
}

// --- Giving out rows
// ------------------------------------------------------------------------------

int64_t InterventionTables::LowestFreeRow(int64_t from) const {
  int64_t row = from;
  for (auto live = rows_.lower_bound(from); live != rows_.end() && live->first == row; ++live) {
    ++row;
  }
  return row;
}

std::map<InterventionTables::StageKey, InterventionTables::Extent> InterventionTables::ExtentsWith(
    const CompiledInterventions& compiled) const {
  std::map<StageKey, Extent> grown;
  std::set<std::string> fresh;
  int64_t row = 0;
  for (uint64_t active = 1; active <= compiled.num_sets(); ++active) {
    const std::string& digest = compiled.ContentDigest(active);
    if (digest.empty() || rows_by_digest_.contains(digest) || !fresh.insert(digest).second) {
      continue;
    }
    row = LowestFreeRow(row + 1);
    std::map<int, int> ordinals;
    for (const WireEdit& edit : compiled.EditsOf(active)) {
      const StageKey key{edit.wire, ordinals[edit.wire]++, edit.stage->index()};
      const auto [place, is_new] = grown.try_emplace(key);
      const Table* const table = is_new ? TableAt(key) : nullptr;
      if (table != nullptr) place->second = table->extent;
      place->second.Include(*edit.stage, row);
    }
  }
  return grown;
}

const InterventionTables::Table* InterventionTables::TableAt(const StageKey& key) const {
  if (const auto table = tables_.find(key); table != tables_.end()) return &table->second;
  const auto kept = kept_.find(key);
  return kept == kept_.end() ? nullptr : &kept->second;
}

int64_t InterventionTables::BytesWith(const CompiledInterventions& compiled) const {
  return BytesWith(ExtentsWith(compiled));
}

// They have no extents that could overflow: each is a part of a message times a number of rows.
int64_t InterventionTables::BytesWith(const std::map<StageKey, Extent>& grown) const {
  int64_t total = bytes();
  for (const auto& [key, extent] : grown) {
    const auto table = tables_.find(key);
    if (table != tables_.end()) total -= table->second.extent.bytes(std::get<2>(key));
    total += extent.bytes(std::get<2>(key));
  }
  return total;
}

int64_t InterventionTables::OutgrownBytesWith(const std::map<StageKey, Extent>& grown) const {
  int64_t most = OutgrownBytes();
  for (const auto& [key, extent] : grown) {
    const Table* const table = TableAt(key);
    if (table != nullptr) most = std::max(most, OutgrownBytes(key, *table, extent));
  }
  return most;
}

int64_t InterventionTables::OutgrownBytes(const StageKey& key, const Table& table,
                                          const Extent& larger) {
  const Extent before = Extent::Of(table.stage);
  return before == larger ? 0 : before.bytes(std::get<2>(key));
}

absl::Status InterventionTables::Pay(int64_t bytes) {
  if (memory_ == nullptr) return absl::OkStatus();
  if (lease_ == nullptr) {
    VS_ASSIGN_OR_RETURN(lease_, memory_->Take(0));
  }
  return lease_->Grow(std::max<int64_t>(0, bytes - lease_->bytes()));
}

void InterventionTables::GiveChange() {
  if (lease_ != nullptr) lease_->ShrinkTo(bytes() + OutgrownBytes() + kept_bytes());
}

absl::StatusOr<bool> InterventionTables::MakeRoom(const CompiledInterventions& compiled) {
  const auto needed = [&] {
    const std::map<StageKey, Extent> grown = ExtentsWith(compiled);
    return BytesWith(grown) + OutgrownBytesWith(grown);
  };
  if (Pay(needed() + kept_bytes()).ok()) return true;
  // What is kept may be larger than the table that comes to its place needs to be.
  kept_.clear();
  GiveChange();
  const int64_t bytes = needed();
  const absl::Status paid = Pay(bytes);
  if (paid.ok()) return true;
  // Where the place is full, and not the tables, nobody who leaves them needs to make room.
  if (bytes <= memory_->capacity()) return paid;
  return false;
}

std::optional<std::vector<int64_t>> InterventionTables::FindRows(
    const CompiledInterventions& compiled) const {
  std::vector<int64_t> rows(compiled.num_sets() + 1, 0);
  for (uint64_t active = 1; active < rows.size(); ++active) {
    const std::string& digest = compiled.ContentDigest(active);
    if (digest.empty()) continue;
    const auto found = rows_by_digest_.find(digest);
    if (found == rows_by_digest_.end()) return std::nullopt;
    rows[active] = found->second;
  }
  return rows;
}

absl::StatusOr<std::optional<std::vector<int64_t>>> InterventionTables::AcquireRows(
    const CompiledInterventions& compiled) {
  if (std::optional<std::vector<int64_t>> rows = FindRows(compiled)) {
    for (const int64_t row : *rows) {
      if (row != 0) ++rows_.at(row).holders;
    }
    return rows;
  }
  VS_ASSIGN_OR_RETURN(const bool room, MakeRoom(compiled));
  if (!room) return std::nullopt;
  std::vector<int64_t> rows(compiled.num_sets() + 1, 0);
  try {
    for (uint64_t active = 1; active < rows.size(); ++active) {
      rows[active] = TakeRow(compiled, active);
    }
  } catch (...) {
    ReleaseRows(rows);
    throw;
  }
  GiveChange();
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
    owned.source = compiled.prepared();
    owned.touched = compiled.LayersTouched(active);
    rows_by_digest_.emplace(digest, row);
    Register(row, compiled.EditsOf(active));
  } catch (...) {
    ReleaseRows(std::span(&row, 1));
    throw;
  }
  return row;
}

void InterventionTables::Register(int64_t row, const std::vector<WireEdit>& edits) {
  std::map<int, int> ordinals;  // of the next edit, by wire
  for (const WireEdit& edit : edits) {
    const StageKey key{edit.wire, ordinals[edit.wire]++, edit.stage->index()};
    Row& owned = rows_.at(row);
    owned.tables.push_back(key);
    ++owned.unwritten;
    Table& table = tables_[key];
    if (table.rows.empty()) {
      auto kept = kept_.extract(key);
      table.stage = kept.empty() ? WithoutTables(*edit.stage) : std::move(kept.mapped().stage);
      table.extent = Extent::Of(table.stage);
    }
    table.extent.Include(*edit.stage, row);
    table.rows.insert(row);
    if (PreservesNorm(*edit.stage)) table.preserving.insert(row);
    SetOnlyAdds(table);
    table.unwritten.emplace(row, edit);
    if (table.unwritten.size() == 1) to_write_.push_back(key);
  }
}

void InterventionTables::SetOnlyAdds(Table& table) {
  if (auto* add = std::get_if<model::AddStage>(&table.stage)) {
    add->only_adds = table.preserving.empty();
  }
}

// --- Writing them
// ---------------------------------------------------------------------------------

bool InterventionTables::WriteRows(int64_t bytes) {
  while (!to_write_.empty() && bytes > 0) {
    const StageKey key = to_write_.front();
    Table& table = tables_.at(key);
    const bool outgrown = OutgrownBytes(key, table, table.extent) > 0;
    bytes -= Write(key, table);
    to_write_.pop_front();
    if (!outgrown) continue;
    ++given_up_;
    GiveChange();
  }
  return !to_write_.empty();
}

int64_t InterventionTables::Write(const StageKey& key, Table& table) {
  int64_t bytes = Grow(key, table);
  const std::vector<at::Tensor*> tables = TablesOf(table.stage);
  for (auto begin = table.unwritten.cbegin(); begin != table.unwritten.cend();) {
    const auto end = EndOfRun(begin, table.unwritten.cend());
    for (size_t i = 0; i < tables.size(); ++i) bytes += CopyRun(begin, end, i, *tables[i]);
    begin = end;
  }
  for (const auto& [row, edit] : std::exchange(table.unwritten, {})) {
    Row& owned = rows_.at(row);
    if (--owned.unwritten == 0) owned.source = nullptr;
  }
  return bytes;
}

// The bytes of what it had to allocate.
int64_t InterventionTables::Grow(const StageKey& key, Table& table) {
  const std::vector<std::vector<int64_t>> shapes = table.extent.shapes(std::get<2>(key));
  const model::Stage& edit = *table.unwritten.begin()->second.stage;
  const std::vector<const at::Tensor*> rows = TablesOf(edit);
  model::Stage grown = table.stage;
  const std::vector<at::Tensor*> tables = TablesOf(grown);
  int64_t bytes = 0;
  for (size_t i = 0; i < tables.size(); ++i) {
    at::Tensor& old = *tables[i];
    if (old.defined() && old.sizes() == at::IntArrayRef(shapes[i])) continue;
    const at::Tensor larger = at::full(shapes[i], kNothing, rows[i]->options().device(device_));
    if (old.defined()) Corner(larger, old.sizes()).copy_(old);
    bytes += static_cast<int64_t>(larger.nbytes());
    old = larger;
  }
  table.stage = std::move(grown);
  return bytes;
}

bool InterventionTables::Written(std::span<const int64_t> rows) const {
  return AllWritten() || std::none_of(rows.begin(), rows.end(), [this](int64_t row) {
           return row != 0 && rows_.at(row).unwritten > 0;
         });
}

bool InterventionTables::AwaitsNextWrite(std::span<const int64_t> rows) const {
  if (AllWritten()) return false;
  const Rows& next = tables_.at(to_write_.front()).unwritten;
  return std::any_of(rows.begin(), rows.end(), [&next](int64_t row) { return next.contains(row); });
}

// --- Giving them back
// -----------------------------------------------------------------------------

void InterventionTables::ReleaseRows(std::span<const int64_t> rows) {
  std::map<StageKey, std::vector<int64_t>> left;
  std::set<int64_t> gone;
  for (const int64_t row : rows) {
    const auto found = rows_.find(row);
    if (found != rows_.end() && --found->second.holders == 0) gone.insert(row);
  }
  for (const int64_t row : gone) {
    for (const StageKey& key : rows_.at(row).tables) left[key].push_back(row);
  }
  for (const auto& [key, of_table] : left) Leave(key, of_table);
  for (const int64_t row : gone) {
    rows_by_digest_.erase(rows_.at(row).digest);
    rows_.erase(row);
    ++given_up_;
  }
  if (!gone.empty()) GiveChange();
}

// Ascending rows of a table lose their last holders.
void InterventionTables::Leave(const StageKey& key, std::span<const int64_t> rows) {
  const auto found = tables_.find(key);
  if (found == tables_.end()) return;  // taking the row ended half-way
  Table& table = found->second;
  const bool waited = !table.unwritten.empty();
  for (const int64_t row : rows) {
    table.rows.erase(row);
    table.preserving.erase(row);
    table.unwritten.erase(row);
  }
  if (waited && table.unwritten.empty()) {
    std::erase(to_write_, key);
    table.extent = Extent::Of(table.stage);
  }
  // Where they were not written, there may be no room for them, or none at all.
  const int64_t capacity = CapacityOf(table.stage);
  const bool last = table.rows.empty(), keep = keeps_addresses_ && capacity > 0;
  if (!last || keep) {
    ForEachRun(rows, [&](int64_t first, int64_t count) {
      const int64_t there = std::min(count, capacity - first);
      if (there > 0) Silence(table.stage, first, there);
    });
    SetOnlyAdds(table);
  }
  if (!last) return;
  if (keep) kept_.insert_or_assign(key, std::move(table));
  tables_.erase(found);
}

// --- What a step needs
// ----------------------------------------------------------------------------

void InterventionTables::AddTo(model::StepProgram& program) const {
  // In the order of the keys: a wire's ordinals ascend.
  for (const auto& [key, table] : tables_) {
    if (CapacityOf(table.stage) == 0) continue;  // nothing of it is written yet
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

int64_t InterventionTables::OutgrownBytes() const {
  int64_t most = 0;
  for (const StageKey& key : to_write_) {
    const Table& table = tables_.at(key);
    most = std::max(most, OutgrownBytes(key, table, table.extent));
  }
  return most;
}

int64_t InterventionTables::BytesOf(const std::map<StageKey, Table>& tables) {
  int64_t bytes = 0;
  for (const auto& [key, table] : tables) bytes += table.extent.bytes(std::get<2>(key));
  return bytes;
}

}  // namespace valuescope::engine
