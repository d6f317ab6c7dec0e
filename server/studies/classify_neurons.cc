#include "studies/classify_neurons.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/decomposition.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "studies/contract_enums.h"

namespace valuescope::studies {
namespace {

using analysis::NeuronClass;

struct Axes {
  std::vector<float> shared;      // [hidden]
  std::vector<float> difference;  // [hidden]
  std::string missing;            // why there are none; empty where there are
};

absl::StatusOr<Axes> AxesOf(const StoredVector& first, const StoredVector& second,
                            const ClassificationPlan& plan, int layer) {
  const auto first_row = first.RowOfLayer(layer);
  const auto second_row = second.RowOfLayer(layer);
  if (!first_row || !second_row) {
    return InvalidField("layers", absl::StrCat("a vector has no row for layer ", layer));
  }
  const std::span<const float> a = first.row(*first_row);
  const std::span<const float> b = second.row(*second_row);
  if (plan.source == AxesSource::kAxes) {
    return Axes{.shared = {a.begin(), a.end()}, .difference = {b.begin(), b.end()}, .missing = ""};
  }
  auto parts = analysis::Decompose({.intrinsic = a, .prompted = b},
                                   {.normalize_columns = plan.normalize_columns});
  Axes axes;
  if (!parts.ok()) {
    axes.missing = std::string(parts.status().message());
    return axes;
  }
  for (const auto warning : parts->warnings) {
    axes.missing = warning == analysis::DecompositionWarning::kCollinear
                       ? "the vectors are collinear"
                       : "the vectors share no direction";
  }
  axes.shared = std::move(parts->shared);
  axes.difference = std::move(parts->difference);
  return axes;
}

NeuronColumns ColumnsOf(int layer, analysis::NeuronGeometry geometry) {
  NeuronColumns columns;
  columns.layer = layer;
  columns.scores = std::move(geometry.scores);
  columns.classes = std::move(geometry.classes);
  columns.angles = std::move(geometry.angles);
  return columns;
}

v1::NeuronSetLayer SummaryOf(int layer, const analysis::NeuronGeometry& geometry,
                             bool admit_negative_shared) {
  v1::NeuronSetLayer summary;
  summary.set_layer(layer);
  summary.set_num_neurons(static_cast<int64_t>(geometry.scores.size()));
  summary.set_num_members(static_cast<int64_t>(geometry.members.size()));
  for (int i = 1; i < analysis::kNumNeuronClasses; ++i) {
    const auto neuron_class = static_cast<NeuronClass>(i);
    if (neuron_class == NeuronClass::kSharedNegative && !admit_negative_shared) continue;
    const auto place = static_cast<size_t>(i);
    v1::NeuronClassCount& count = *summary.add_classes();
    count.set_class_(ClassToProto(neuron_class));
    count.set_count(geometry.counts[place]);
    count.set_expected_count(geometry.expected_counts[place]);
  }
  summary.set_score_sum(std::accumulate(geometry.scores.begin(), geometry.scores.end(), 0.0));
  const auto [low, high] = std::minmax_element(geometry.scores.begin(), geometry.scores.end());
  summary.set_score_min(*low);
  summary.set_score_max(*high);
  return summary;
}

// Whether a layer's axes span no plane: a row is zero, which is how a decomposition writes an axis
// that does not exist, or both lie on one line.
bool HasNoAxes(const absl::Status& status) {
  const std::string reason = DetailsOf(status).reason;
  return reason == "ZERO_VECTOR" || reason == "COLLINEAR";
}

absl::Status NoSharedDirection(absl::string_view description) {
  return InvalidField("layers", description, "NO_SHARED_DIRECTION");
}

// A layer without axes: a refusal where the plan is strict, else a warning.
absl::Status LeaveOut(int layer, absl::string_view why, const ClassificationPlan& plan,
                      Classification& result) {
  const std::string what = absl::StrCat("layer ", layer, ": ", why);
  if (plan.strict) return NoSharedDirection(what);
  result.warnings.push_back(absl::StrCat(what, "; left out"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Classification> ClassifyNeurons(const engine::Engine& engine,
                                               const StoredVector& first,
                                               const StoredVector& second,
                                               const ClassificationPlan& plan,
                                               const Cancellation& cancellation) {
  const model::Architecture& architecture = engine.architecture();
  Classification result;
  for (const int layer : plan.layers) {
    if (cancellation.cancelled()) {
      return ErrorWithReason(absl::StatusCode::kCancelled, "CANCELLED", "the work was cancelled");
    }
    VS_ASSIGN_OR_RETURN(const Axes axes, AxesOf(first, second, plan, layer));
    if (!axes.missing.empty()) {
      VS_RETURN_IF_ERROR(LeaveOut(layer, axes.missing, plan, result));
      continue;
    }
    // [hidden, intermediate]
    VS_ASSIGN_OR_RETURN(const HostTensor weights, engine.WriteDirections(layer));
    auto geometry = analysis::ClassifyNeurons(
        {.columns = weights.As<float>(),
         .hidden = architecture.hidden,
         .intermediate = architecture.intermediate},
        {.shared = axes.shared, .difference = axes.difference}, plan.geometry);
    if (HasNoAxes(geometry.status())) {
      VS_RETURN_IF_ERROR(LeaveOut(layer, geometry.status().message(), plan, result));
      continue;
    }
    VS_RETURN_IF_ERROR(geometry.status());
    result.layers.push_back(SummaryOf(layer, *geometry, plan.geometry.admit_negative_shared));
    result.columns.push_back(ColumnsOf(layer, *std::move(geometry)));
  }
  if (result.columns.empty()) {
    return NoSharedDirection(absl::StrCat(
        "no layer is left: the vectors give axes in none of them (", result.warnings.front(), ")"));
  }
  return result;
}

}  // namespace valuescope::studies
