#include "analysis/neuron_geometry.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "analysis/statistics.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

constexpr double kDegreesPerRadian = 180.0 / std::numbers::pi;

// Below this sine float32 rounding decides where the second axis points.
constexpr double kSmallestAxisSine = 1e-6;

struct OrthonormalAxes {
  std::vector<double> shared;      // [hidden]
  std::vector<double> difference;  // [hidden]
};

absl::Status CheckOptions(const NeuronGeometryOptions& options) {
  if (!(options.top_percent > 0 && options.top_percent <= 100)) {
    return InvalidField(
        "top_percent",
        absl::StrCat("is ", options.top_percent, ", must be above 0 and at most 100"),
        "OUT_OF_RANGE");
  }
  if (!(options.max_angle_degrees > 0 && options.max_angle_degrees <= 45)) {
    return InvalidField(
        "max_angle",
        absl::StrCat("is ", options.max_angle_degrees, ", must be above 0 and at most 45 degrees"),
        "OUT_OF_RANGE");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<double>> UnitAxis(std::span<const float> axis, int64_t hidden,
                                             absl::string_view field) {
  if (axis.size() != static_cast<size_t>(hidden)) {
    return InvalidField(field, absl::StrCat("has ", axis.size(), " elements, must have ", hidden));
  }
  if (!AllFinite(axis)) return InvalidField(field, "must be finite", "NOT_FINITE");
  const double norm = Norm(axis);
  if (norm == 0) return InvalidField(field, "must not be zero", "ZERO_VECTOR");
  std::vector<double> unit(axis.begin(), axis.end());
  for (double& element : unit) element /= norm;
  return unit;
}

absl::StatusOr<OrthonormalAxes> MakeOrthonormal(const ValueAxes& axes, int64_t hidden) {
  OrthonormalAxes out;
  VS_ASSIGN_OR_RETURN(out.shared, UnitAxis(axes.shared, hidden, "axes.shared"));
  VS_ASSIGN_OR_RETURN(out.difference, UnitAxis(axes.difference, hidden, "axes.difference"));
  const double along = InnerProduct(out.shared, out.difference);
  for (int64_t h = 0; h < hidden; ++h) out.difference[h] -= along * out.shared[h];
  const double rest = Norm(out.difference);
  if (rest <= kSmallestAxisSine) {
    return InvalidField("axes.difference", "must not be collinear with axes.shared", "COLLINEAR");
  }
  for (double& element : out.difference) element /= rest;
  return out;
}

struct NearestAxis {
  NeuronClass neuron_class = NeuronClass::kUnclassified;
  double angle = 90.0;  // degrees
};

// `shared` and `difference` are the coordinates of p_i.
NearestAxis FindNearestAxis(double shared, double difference, bool admit_negative_shared) {
  if (shared == 0 && difference == 0) return {};
  const NearestAxis candidates[] = {
      {NeuronClass::kShared, std::atan2(std::abs(difference), shared)},
      {NeuronClass::kIntrinsic, std::atan2(std::abs(shared), difference)},
      {NeuronClass::kPrompted, std::atan2(std::abs(shared), -difference)},
      {NeuronClass::kSharedNegative, std::atan2(std::abs(difference), -shared)},
  };
  const int num_candidates = admit_negative_shared ? 4 : 3;
  NearestAxis nearest = *std::min_element(
      candidates, candidates + num_candidates,
      [](const NearestAxis& a, const NearestAxis& b) { return a.angle < b.angle; });
  nearest.angle *= kDegreesPerRadian;
  return nearest;
}

std::array<double, kNumNeuronClasses> ExpectedCounts(int64_t num_kept, int64_t intermediate,
                                                     const NeuronGeometryOptions& options) {
  std::array<double, kNumNeuronClasses> expected = {};
  const double per_axis = static_cast<double>(num_kept) * options.max_angle_degrees / 180.0;
  const int num_axes = options.admit_negative_shared ? 4 : 3;
  expected[static_cast<int>(NeuronClass::kNone)] = static_cast<double>(intermediate - num_kept);
  expected[static_cast<int>(NeuronClass::kUnclassified)] =
      static_cast<double>(num_kept) - num_axes * per_axis;
  expected[static_cast<int>(NeuronClass::kShared)] = per_axis;
  expected[static_cast<int>(NeuronClass::kIntrinsic)] = per_axis;
  expected[static_cast<int>(NeuronClass::kPrompted)] = per_axis;
  if (options.admit_negative_shared) {
    expected[static_cast<int>(NeuronClass::kSharedNegative)] = per_axis;
  }
  return expected;
}

std::vector<int32_t> LargestScores(const std::vector<double>& scores, int64_t num_kept) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(
      order.begin(), order.begin() + num_kept, order.end(),
      [&](int32_t a, int32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
  order.resize(num_kept);
  return order;
}

}  // namespace

absl::StatusOr<NeuronGeometry> ClassifyNeurons(const WriteDirections& weights,
                                               const ValueAxes& axes,
                                               const NeuronGeometryOptions& options) {
  VS_RETURN_IF_ERROR(CheckOptions(options));
  VS_ASSIGN_OR_RETURN(const std::vector<double> squared_norms, SquaredColumnNorms(weights));
  VS_ASSIGN_OR_RETURN(const OrthonormalAxes basis, MakeOrthonormal(axes, weights.hidden));
  VS_ASSIGN_OR_RETURN(const std::vector<double> shared,
                      ProjectColumns(weights, basis.shared, "axes.shared"));
  VS_ASSIGN_OR_RETURN(const std::vector<double> difference,
                      ProjectColumns(weights, basis.difference, "axes.difference"));

  const int64_t intermediate = weights.intermediate;
  NeuronGeometry out;
  out.projection_norms.resize(intermediate);
  out.angles.resize(intermediate);
  out.scores.resize(intermediate);
  out.classes.assign(intermediate, NeuronClass::kNone);
  std::vector<NearestAxis> nearest(intermediate);
  for (int64_t i = 0; i < intermediate; ++i) {
    nearest[i] = FindNearestAxis(shared[i], difference[i], options.admit_negative_shared);
    out.angles[i] = nearest[i].angle;
    out.projection_norms[i] = std::hypot(shared[i], difference[i]);
    out.scores[i] = out.projection_norms[i];
    if (options.rank_by_relative_norm) {
      out.scores[i] = squared_norms[i] > 0 ? out.scores[i] / std::sqrt(squared_norms[i]) : 0.0;
    }
  }

  const int64_t num_kept = CountOfPercent(options.top_percent, intermediate);
  out.members = LargestScores(out.scores, num_kept);
  for (const int32_t i : out.members) {
    out.classes[i] = nearest[i].angle < options.max_angle_degrees ? nearest[i].neuron_class
                                                                  : NeuronClass::kUnclassified;
  }
  for (const NeuronClass c : out.classes) ++out.counts[static_cast<int>(c)];
  out.expected_counts = ExpectedCounts(num_kept, intermediate, options);
  return out;
}

double IsotropicExceedance(double squared_ratio, int64_t width) {
  VS_CHECK(width >= 2 && squared_ratio >= 0 && squared_ratio <= 1);
  return std::pow(1 - squared_ratio, static_cast<double>(width - 2) / 2);
}

double IsotropicQuantile(double probability, int64_t width) {
  VS_CHECK(width >= 3 && probability > 0 && probability <= 1);
  return -std::expm1(2 * std::log(probability) / static_cast<double>(width - 2));
}

}  // namespace valuescope::analysis
