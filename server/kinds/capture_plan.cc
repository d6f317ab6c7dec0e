#include "kinds/capture_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/dtype.h"
#include "model/site.h"

namespace valuescope::kinds {
namespace {

// So that heads of files, lists of parts and what a worker reads of a shard stay small.
constexpr int64_t kMostInputsPerShard = 2048;
constexpr int64_t kMostTensorsPerShard = 1 << 16;
// Of a file, that the inputs of a shard fill on average: they differ, and a shard whose inputs are
// too much for one file leaves a small second one.
constexpr double kFilled = 0.875;
constexpr DType kPositionType = DType::kInt32;

}  // namespace

CapturePlan::CapturePlan(const std::vector<engine::Tap>& taps,
                         const model::Architecture& architecture, int64_t max_file_bytes)
    : max_file_bytes_(max_file_bytes) {
  for (const engine::Tap& tap : taps) {
    PlannedTap& planned = taps_.emplace_back(
        PlannedTap{.tokens = tap.tokens, .reduction = tap.reduction, .dtype = tap.dtype});
    if (tap.columns.empty()) {
      planned.num_layers = {std::max<int64_t>(1, static_cast<int64_t>(tap.layers.size()))};
      planned.widths = {model::WidthOf(tap.site, architecture)};
      continue;
    }
    for (size_t i = 0; i < tap.columns.size(); ++i) {
      planned.layers.push_back(tap.layers[i]);
      planned.num_layers.push_back(1);
      planned.widths.push_back(static_cast<int64_t>(tap.columns[i].size()));
    }
  }
}

CapturePlan::Rows CapturePlan::RowsOf(const PlannedTap& tap, const engine::SequenceExtent& extent) {
  const auto scope = engine::TokenScope::Resolve(tap.tokens, extent, /*for_tap=*/true);
  // The engine was asked whether it takes the sequence.
  VS_CHECK(scope.ok());
  Rows rows{.read = scope->MostTokens(), .kept = scope->MostTokens()};
  if (tap.reduction == engine::Reduction::kLast) rows.read = 1;
  if (tap.reduction != engine::Reduction::kNone) rows.kept = 1;
  return rows;
}

std::vector<studies::DeclaredTensor> CapturePlan::TensorsOf(
    int64_t index, const engine::SequenceExtent& extent) const {
  std::vector<studies::DeclaredTensor> tensors;
  for (size_t t = 0; t < taps_.size(); ++t) {
    const PlannedTap& tap = taps_[t];
    const Rows rows = RowsOf(tap, extent);
    const std::string name = absl::StrCat("tap.", t, ".input.", index);
    for (size_t i = 0; i < tap.widths.size(); ++i) {
      tensors.push_back(
          {.name = tap.layers.empty() ? name : absl::StrCat(name, ".layer.", tap.layers[i]),
           .dtype = tap.dtype,
           .shape = {tap.num_layers[i], rows.kept, tap.widths[i]}});
    }
    tensors.push_back(
        {.name = absl::StrCat(name, ".positions"), .dtype = kPositionType, .shape = {rows.read}});
  }
  return tensors;
}

int64_t CapturePlan::TensorsPerInput() const {
  int64_t count = 0;
  for (const PlannedTap& tap : taps_) count += static_cast<int64_t>(tap.widths.size()) + 1;
  return count;
}

int64_t CapturePlan::BytesOf(const engine::SequenceExtent& extent) const {
  int64_t bytes = 0;
  for (const PlannedTap& tap : taps_) {
    const Rows rows = RowsOf(tap, extent);
    for (size_t i = 0; i < tap.widths.size(); ++i) {
      bytes += tap.num_layers[i] * rows.kept * tap.widths[i] * SizeOf(tap.dtype);
    }
    bytes += rows.read * SizeOf(kPositionType);
  }
  return bytes;
}

int64_t CapturePlan::InputsPerShard(int64_t inputs, int64_t bytes) const {
  const double mean = static_cast<double>(bytes) / static_cast<double>(inputs);
  const double fill = kFilled * static_cast<double>(max_file_bytes_) / std::max(1.0, mean);
  const int64_t most =
      std::min(kMostInputsPerShard, std::max<int64_t>(1, kMostTensorsPerShard / TensorsPerInput()));
  return std::clamp<int64_t>(static_cast<int64_t>(std::min(fill, 1e6)), 1, most);
}

std::vector<int64_t> CapturePlan::FileEnds(
    const jobs::UnitRange& shard,
    absl::FunctionRef<engine::SequenceExtent(int64_t index)> extent_of) const {
  std::vector<int64_t> ends;
  int64_t filled = 0;
  for (int64_t input = shard.first; input < shard.end; ++input) {
    const int64_t bytes = BytesOf(extent_of(input));
    if (input > shard.first && filled + bytes > max_file_bytes_) {
      ends.push_back(input);
      filled = 0;
    }
    filled += bytes;
  }
  ends.push_back(shard.end);
  return ends;
}

}  // namespace valuescope::kinds
