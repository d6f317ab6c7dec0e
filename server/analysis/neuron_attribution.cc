#include "analysis/neuron_attribution.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

absl::Status CheckMeans(std::span<const double> means, int64_t intermediate,
                        absl::string_view field) {
  if (means.size() != static_cast<size_t>(intermediate)) {
    return InvalidField(field,
                        absl::StrCat("has ", means.size(), " elements, must have ", intermediate));
  }
  if (!AllFinite(means)) return InvalidField(field, "must be finite", "NOT_FINITE");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DirectContribution> ComputeDirectContribution(const NeuronActivationMeans& means,
                                                             const WriteDirections& weights,
                                                             std::span<const float> vector) {
  VS_RETURN_IF_ERROR(CheckMeans(means.expressing, weights.intermediate, "means.expressing"));
  VS_RETURN_IF_ERROR(
      CheckMeans(means.non_expressing, weights.intermediate, "means.non_expressing"));
  const std::vector<double> v(vector.begin(), vector.end());
  VS_ASSIGN_OR_RETURN(const std::vector<double> along, ProjectColumns(weights, v, "vector"));
  const double squared_norm = InnerProduct(v, v);
  if (squared_norm == 0) return InvalidField("vector", "must not be zero", "ZERO_VECTOR");

  DirectContribution out;
  out.scores.resize(weights.intermediate);
  for (int64_t i = 0; i < weights.intermediate; ++i) {
    out.scores[i] = (means.expressing[i] - means.non_expressing[i]) * along[i] / squared_norm;
    out.score_sum += out.scores[i];
  }
  const auto [smallest, largest] = std::minmax_element(out.scores.begin(), out.scores.end());
  out.score_min = *smallest;
  out.score_max = *largest;
  return out;
}

std::vector<RankedNeuron> RankNeurons(std::span<const LayerScores> layers, int64_t top_k) {
  VS_CHECK(top_k >= 0);
  std::vector<RankedNeuron> neurons;
  for (const LayerScores& layer : layers) {
    for (size_t i = 0; i < layer.scores.size(); ++i) {
      neurons.push_back(
          {.layer = layer.layer, .index = static_cast<int32_t>(i), .score = layer.scores[i]});
    }
  }
  const size_t kept = std::min(static_cast<size_t>(top_k), neurons.size());
  std::partial_sort(neurons.begin(), neurons.begin() + kept, neurons.end(),
                    [](const RankedNeuron& a, const RankedNeuron& b) {
                      return std::make_tuple(-std::abs(a.score), a.layer, a.index) <
                             std::make_tuple(-std::abs(b.score), b.layer, b.index);
                    });
  neurons.resize(kept);
  return neurons;
}

}  // namespace valuescope::analysis
