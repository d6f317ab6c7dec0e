#include "engine/taps.h"

#include <ATen/ops/div.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "model/device_types.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

constexpr size_t kMostTaps = 16;

bool KeepsTokens(Reduction reduction) { return reduction == Reduction::kNone; }

bool IsMean(Reduction reduction) {
  return reduction == Reduction::kMean || reduction == Reduction::kMeanNorm ||
         reduction == Reduction::kMeanPositive || reduction == Reduction::kMeanMagnitude;
}

// What is read of the tokens is kept in: a sum of many is to lose nothing.
DType DestinationType(Reduction reduction) {
  const bool adds = IsMean(reduction) || reduction == Reduction::kSum;
  return adds ? DType::kFloat64 : DType::kFloat32;
}

model::TapOperation OperationOf(Reduction reduction) {
  switch (reduction) {
    case Reduction::kMean:
    case Reduction::kSum:
      return model::TapOperation::kSum;
    case Reduction::kMax:
      return model::TapOperation::kMax;
    case Reduction::kMeanNorm:
      return model::TapOperation::kNorm;
    case Reduction::kMeanPositive:
      return model::TapOperation::kPositive;
    case Reduction::kMeanMagnitude:
      return model::TapOperation::kMagnitude;
    case Reduction::kNone:
    case Reduction::kLast:
      break;
  }
  return model::TapOperation::kCopy;
}

absl::Status CheckColumns(const Tap& tap, int64_t width) {
  if (tap.columns.empty()) return absl::OkStatus();
  if (tap.columns.size() != std::max<size_t>(1, tap.layers.size())) {
    return InvalidField("columns", "must be chosen for every layer");
  }
  for (const NeuronIndices& columns : tap.columns) {
    if (columns.empty()) return InvalidField("columns", "must be chosen for every layer");
    for (size_t i = 0; i < columns.size(); ++i) {
      if (columns[i] < 0 || columns[i] >= width) {
        return OutOfRange("columns", static_cast<double>(columns[i]), 0,
                          static_cast<double>(width - 1));
      }
      if (i > 0 && columns[i] <= columns[i - 1])
        return InvalidField("columns", "must be ascending and distinct");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SequenceTaps> SequenceTaps::Compile(std::vector<Tap> taps,
                                                   const SequenceExtent& extent,
                                                   const model::Architecture& architecture,
                                                   int64_t max_bytes) {
  if (taps.size() > kMostTaps) {
    return InvalidField("taps",
                        absl::StrCat("are ", taps.size(), ", allowed are at most ", kMostTaps));
  }
  SequenceTaps compiled;
  compiled.architecture_ = &architecture;
  for (size_t i = 0; i < taps.size(); ++i) {
    const std::string field = absl::StrCat("taps[", i, "]");
    const Tap& tap = taps[i];
    if (absl::Status s = model::CheckLayers(tap.site, tap.layers, architecture); !s.ok())
      return InField(field, s);
    auto scope = TokenScope::Resolve(tap.tokens, extent, /*for_tap=*/true);
    if (!scope.ok()) return InField(absl::StrCat(field, ".tokens"), scope.status());
    compiled.wants_generated_ |= MayHoldGenerated(tap.tokens, extent.prompt);
    CompiledTap one;
    one.tap = tap;
    VS_CHECK(tap.reduction != Reduction::kMeanNorm ||
             (tap.columns.empty() && tap.tokens.kind != TokenKind::kLast));
    // Which token is the last one shows at the end only, and any reduction of one token is itself.
    if (tap.tokens.kind == TokenKind::kLast) one.tap.reduction = Reduction::kLast;
    one.scope = *std::move(scope);
    const int64_t width = model::WidthOf(tap.site, architecture);
    const int64_t whole = one.tap.reduction == Reduction::kMeanNorm ? 1 : width;
    if (tap.layers.empty()) {
      one.wires.push_back(model::WireIndex(model::Normalised({tap.site, 0}), architecture));
    }
    for (const int layer : tap.layers) {
      one.wires.push_back(model::WireIndex(model::Normalised({tap.site, layer}), architecture));
    }
    if (absl::Status s = CheckColumns(tap, width); !s.ok()) return InField(field, s);
    int64_t row_elements = 0;  // of all layers
    for (size_t w = 0; w < one.wires.size(); ++w) {
      one.widths.push_back(tap.columns.empty() ? whole
                                               : static_cast<int64_t>(tap.columns[w].size()));
      row_elements += one.widths.back();
    }
    // At most 2^40 by the bounds of architecture and context, so the product stays within 64 bits.
    // What is captured and its copy for the client are there at once.
    const int64_t held = SizeOf(DestinationType(one.tap.reduction));
    compiled.bytes_ += row_elements * one.rows() * (held + SizeOf(one.tap.dtype));
    if (compiled.bytes_ > max_bytes) {
      return NeverFits(
          "CAPTURE_TOO_LARGE",
          absl::StrCat("`", field, "`: the captures of one request may take ", max_bytes,
                       " bytes; choose fewer layers or tokens, or a reduction"));
    }
    compiled.taps_.push_back(std::move(one));
  }
  return compiled;
}

int64_t SequenceTaps::CompiledTap::rows() const {
  return KeepsTokens(tap.reduction) ? scope.MostTokens() : 1;
}

void SequenceTaps::CompiledTap::Release() {
  positions.clear();
  columns.clear();
  destinations.clear();
}

void SequenceTaps::Reset(c10::Device device) {
  device_ = device;
  allocated_ = true;
  for (CompiledTap& one : taps_) {
    one.Release();
    const auto options = at::TensorOptions()
                             .dtype(model::ScalarTypeOf(DestinationType(one.tap.reduction)))
                             .device(device);
    for (size_t w = 0; w < one.wires.size(); ++w) {
      one.columns.push_back(one.tap.columns.empty()
                                ? at::Tensor()
                                : at::tensor(one.tap.columns[w].values(), at::kLong).to(device));
      one.destinations.push_back(one.tap.reduction == Reduction::kMax
                                     ? at::full({one.rows(), one.widths[w]},
                                                -std::numeric_limits<float>::infinity(), options)
                                     : at::zeros({one.rows(), one.widths[w]}, options));
    }
  }
}

void SequenceTaps::Release() {
  allocated_ = false;
  for (CompiledTap& one : taps_) one.Release();
}

int64_t SequenceTaps::FirstRead() const {
  int64_t first = INT64_MAX;
  for (const CompiledTap& one : taps_) first = std::min(first, one.scope.First());
  return first;
}

void SequenceTaps::AddTo(model::StepProgram& program, int64_t first, int64_t count,
                         int64_t step_offset, int64_t end) {
  for (CompiledTap& one : taps_) {
    std::vector<int64_t> tokens, rows;
    for (int64_t position = first; position < std::min(first + count, end); ++position) {
      if (!one.scope.Contains(position)) continue;
      tokens.push_back(step_offset + position - first);
      rows.push_back(KeepsTokens(one.tap.reduction) ? static_cast<int64_t>(one.positions.size())
                                                    : 0);
      one.positions.push_back(position);
    }
    if (one.tap.reduction == Reduction::kLast && tokens.size() > 1) {
      tokens = {tokens.back()};
      rows = {0};
    }
    if (tokens.empty()) continue;
    const auto on_device = [this](const std::vector<int64_t>& indices) {
      // Not waiting is safe: what is not pinned is read before the call returns.
      return at::tensor(indices, at::kLong).to(device_, at::kLong, /*non_blocking=*/true);
    };
    const at::Tensor token_index = on_device(tokens), row_index = on_device(rows);
    const model::TapOperation operation = OperationOf(one.tap.reduction);
    for (size_t w = 0; w < one.wires.size(); ++w) {
      program[one.wires[w]].taps.push_back({.operation = operation,
                                            .tokens = token_index,
                                            .rows = row_index,
                                            .destination = one.destinations[w],
                                            .columns = one.columns[w]});
    }
  }
}

HostTensor SequenceTaps::ReadLayers(const CompiledTap& one, size_t first, size_t count) {
  const int64_t tokens = static_cast<int64_t>(one.positions.size());
  const int64_t rows = KeepsTokens(one.tap.reduction) ? tokens : std::min<int64_t>(tokens, 1);
  const int64_t width = one.widths[first];
  HostTensor tensor{
      .dtype = one.tap.dtype, .shape = {static_cast<int64_t>(count), rows, width}, .bytes = {}};
  // Layer by layer, so that no third copy of everything exists.
  tensor.bytes.reserve(count * static_cast<size_t>(rows * width * SizeOf(one.tap.dtype)));
  for (size_t layer = first; layer < first + count; ++layer) {
    at::Tensor part = one.destinations[layer].narrow(0, 0, rows);
    if (IsMean(one.tap.reduction)) part = at::div(part, static_cast<double>(tokens));
    part = part.to(at::kCPU, model::ScalarTypeOf(one.tap.dtype)).contiguous();
    tensor.bytes.append(static_cast<const char*>(part.const_data_ptr()), part.nbytes());
  }
  return tensor;
}

std::vector<Capture> SequenceTaps::Read() const {
  std::vector<Capture> captures;
  for (size_t i = 0; i < taps_.size(); ++i) {
    const CompiledTap& one = taps_[i];
    Capture capture{.tap_index = static_cast<int>(i), .positions = one.positions};
    if (one.tap.reduction == Reduction::kLast && one.positions.size() > 1)
      capture.positions = {one.positions.back()};
    if (one.tap.columns.empty()) {
      capture.layers = one.tap.layers;
      capture.tensor = ReadLayers(one, 0, one.wires.size());
      captures.push_back(std::move(capture));
      continue;
    }
    for (size_t layer = 0; layer < one.wires.size(); ++layer) {
      if (!one.tap.layers.empty()) capture.layers = {one.tap.layers[layer]};
      capture.columns = one.tap.columns[layer].values();
      capture.tensor = ReadLayers(one, layer, 1);
      captures.push_back(capture);
    }
  }
  return captures;
}

}  // namespace valuescope::engine
