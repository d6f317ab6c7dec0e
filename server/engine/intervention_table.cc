#include "engine/intervention_table.h"

#include <ATen/ops/add.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

constexpr size_t kMostInterventions = 64;

absl::Status CheckLayers(const Intervention& intervention,
                         const model::Architecture& architecture) {
  if (!model::IsPerLayer(intervention.site)) {
    if (intervention.layers.empty()) return absl::OkStatus();
    return InvalidField(
        "layers", absl::StrCat(std::string(model::NameOf(intervention.site)), " has no layers"));
  }
  if (intervention.layers.empty()) return InvalidField("layers", "must name at least one layer");
  for (size_t i = 0; i < intervention.layers.size(); ++i) {
    const int layer = intervention.layers[i];
    const std::string field = absl::StrCat("layers[", i, "]");
    if (layer < 0 || layer >= architecture.num_layers) {
      return OutOfRange(field, layer, 0, architecture.num_layers - 1);
    }
    if (i > 0 && layer <= intervention.layers[i - 1])
      return InvalidField(field, "must be above the one before it");
  }
  return absl::OkStatus();
}

absl::Status CheckRows(const Intervention& intervention, const model::Architecture& architecture) {
  const int64_t num_rows = std::max<int64_t>(1, static_cast<int64_t>(intervention.layers.size()));
  const int64_t width = model::WidthOf(intervention.site, architecture);
  if (!std::isfinite(intervention.add.coefficient))
    return InvalidField("add.coefficient", "must be finite");
  if (intervention.add.rows == nullptr ||
      static_cast<int64_t>(intervention.add.rows->size()) != num_rows * width) {
    return InvalidField("add.tensor", absl::StrCat("must have ", width, " elements a layer"));
  }
  for (const float element : *intervention.add.rows) {
    if (!std::isfinite(element)) return InvalidField("add.tensor", "must hold finite numbers only");
    if (!std::isfinite(element * intervention.add.coefficient)) {
      return InvalidField("add.coefficient",
                          "is too large for the vector: their product is beyond float32");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompiledInterventions> CompiledInterventions::Compile(
    std::vector<Intervention> interventions, const SequenceExtent& extent,
    const model::Architecture& architecture) {
  if (interventions.size() > kMostInterventions) {
    return InvalidField(
        "interventions",
        absl::StrCat("are ", interventions.size(), ", allowed are at most ", kMostInterventions));
  }
  CompiledInterventions compiled;
  for (size_t i = 0; i < interventions.size(); ++i) {
    const std::string field = absl::StrCat("interventions[", i, "]");
    const Intervention& one = interventions[i];
    if (absl::Status s = CheckLayers(one, architecture); !s.ok()) return InField(field, s);
    if (absl::Status s = CheckRows(one, architecture); !s.ok()) return InField(field, s);
    auto scope = TokenScope::Resolve(one.tokens, extent, /*for_tap=*/false);
    if (!scope.ok()) return InField(absl::StrCat(field, ".tokens"), scope.status());
    compiled.scopes_.push_back(*std::move(scope));
  }
  compiled.interventions_ = std::move(interventions);
  std::set<uint64_t> sets;
  for (int64_t position = 0; position < extent.most; ++position) {
    sets.insert(compiled.ActiveAt(position));
    if (static_cast<int64_t>(sets.size()) > kMostSetsPerRequest) {
      return InvalidField("interventions",
                          absl::StrCat("overlap in more than ", kMostSetsPerRequest,
                                       " different ways over the tokens; split the request"));
    }
  }
  return compiled;
}

uint64_t CompiledInterventions::ActiveAt(int64_t position) const {
  uint64_t active = 0;
  for (size_t i = 0; i < scopes_.size(); ++i) {
    if (scopes_[i].Contains(position)) active |= uint64_t{1} << i;
  }
  return active;
}

InterventionTables::InterventionTables(const model::Architecture& architecture, int64_t capacity,
                                       c10::Device device)
    : architecture_(architecture), capacity_(capacity), device_(device) {
  for (int64_t row = capacity - 1; row > 0; --row) free_rows_.push_back(row);
}

at::Tensor& InterventionTables::TableOf(int wire, int64_t width) {
  at::Tensor& rows = tables_[wire].rows;
  if (!rows.defined())
    rows = at::zeros({capacity_, width}, at::TensorOptions().dtype(at::kFloat).device(device_));
  return rows;
}

int64_t InterventionTables::AcquireRow(const CompiledInterventions& compiled, uint64_t active) {
  std::map<int, at::Tensor> additions;  // by wire: [width]
  for (size_t i = 0; i < compiled.interventions().size(); ++i) {
    const Intervention& one = compiled.interventions()[i];
    if ((active >> i & 1) == 0 || one.add.coefficient == 0) continue;
    const int64_t width = model::WidthOf(one.site, architecture_);
    const size_t num_rows = std::max<size_t>(1, one.layers.size());
    for (size_t r = 0; r < num_rows; ++r) {
      const model::Wire wire =
          model::Normalised({one.site, one.layers.empty() ? 0 : one.layers[r]});
      const float* source = one.add.rows->data() + static_cast<int64_t>(r) * width;
      const at::Tensor row = at::mul(at::from_blob(const_cast<float*>(source), {width}, at::kFloat),
                                     one.add.coefficient);
      at::Tensor& sum = additions[model::WireIndex(wire, architecture_)];
      sum = sum.defined() ? at::add(sum, row) : row;
    }
  }
  if (additions.empty()) return 0;
  // Admission bounds the sets of every running request, so a row is always free.
  VS_CHECK(!free_rows_.empty());
  const int64_t row = free_rows_.back();
  free_rows_.pop_back();
  std::vector<int>& wires = wires_of_row_[row];
  for (const auto& [wire, addition] : additions) {
    TableOf(wire, addition.size(0))[row].copy_(addition);
    ++tables_[wire].live_rows;
    wires.push_back(wire);
  }
  return row;
}

void InterventionTables::ReleaseRow(int64_t row) {
  const auto found = wires_of_row_.find(row);
  if (found == wires_of_row_.end()) return;
  // The next owner of the row may not touch these wires, so nothing may stay behind.
  for (const int wire : found->second) {
    tables_[wire].rows[row].zero_();
    --tables_[wire].live_rows;
  }
  wires_of_row_.erase(found);
  free_rows_.push_back(row);
}

void InterventionTables::AddTo(model::StepProgram& program) const {
  for (const auto& [wire, table] : tables_) {
    if (table.live_rows > 0) program[wire].additions.push_back({table.rows});
  }
}

}  // namespace valuescope::engine
