#include "analysis/mean_delta.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

struct Delta {
  std::vector<double> elements;  // [width]
  double norm = 0;               // above 0
};

// v_prompt - v_int.  [width]
absl::StatusOr<std::vector<double>> Difference(const VectorPair& pair, size_t width,
                                               const std::string& field) {
  for (const auto& [vector, name] :
       {std::pair(pair.intrinsic, ".intrinsic"), std::pair(pair.prompted, ".prompted")}) {
    VS_RETURN_IF_ERROR(CheckVector(vector, width, absl::StrCat(field, name)));
  }
  std::vector<double> difference(width);
  for (size_t i = 0; i < width; ++i) {
    difference[i] = static_cast<double>(pair.prompted[i]) - pair.intrinsic[i];
  }
  return difference;
}

void Scale(std::vector<double>& elements, double factor) {
  for (double& element : elements) element *= factor;
}

// Of deltas that have a direction.
std::optional<double> MeanPairwiseCosine(const std::vector<Delta>& deltas) {
  if (deltas.size() < 2) return std::nullopt;
  double sum = 0;
  for (size_t s = 0; s < deltas.size(); ++s) {
    for (size_t t = s + 1; t < deltas.size(); ++t) {
      sum += InnerProduct(deltas[s].elements, deltas[t].elements) /
             (Norm(deltas[s].elements) * Norm(deltas[t].elements));
    }
  }
  const double n = static_cast<double>(deltas.size());
  return sum / (n * (n - 1) / 2);
}

double ExplainedVariance(const std::vector<Delta>& deltas, const std::vector<double>& direction) {
  double explained = 0, total = 0;
  for (const Delta& delta : deltas) {
    const double along = InnerProduct(delta.elements, direction);
    explained += along * along;
    total += InnerProduct(delta.elements, delta.elements);
  }
  return explained / total;
}

}  // namespace

absl::StatusOr<MeanDelta> ComputeMeanDelta(std::span<const VectorPair> pairs,
                                           const MeanDeltaOptions& options) {
  if (pairs.empty()) return InvalidField("pairs", "must not be empty");
  const size_t width = pairs.front().intrinsic.size();
  MeanDelta out;
  std::vector<Delta> deltas;  // those with a direction
  for (size_t s = 0; s < pairs.size(); ++s) {
    VS_ASSIGN_OR_RETURN(std::vector<double> elements,
                        Difference(pairs[s], width, absl::StrCat("pairs[", s, "]")));
    const double norm = Norm(elements);
    if (norm == 0) {
      out.zero_deltas.push_back(s);
      continue;
    }
    if (options.unit_deltas) Scale(elements, 1 / norm);
    deltas.push_back({.elements = std::move(elements), .norm = options.unit_deltas ? 1 : norm});
  }
  out.mean_pairwise_cosine = MeanPairwiseCosine(deltas);
  if (deltas.empty()) return out;

  std::vector<double> mean(width, 0.0);
  double longest = 0;
  for (const Delta& delta : deltas) {
    for (size_t i = 0; i < width; ++i) mean[i] += delta.elements[i];
    longest = std::max(longest, delta.norm);
  }
  Scale(mean, 1 / static_cast<double>(options.unit_deltas ? deltas.size() : pairs.size()));
  const double norm = Norm(mean);
  if (norm <= kCancelledMean * longest) return out;
  out.norm = norm;
  Scale(mean, 1 / norm);
  out.explained_variance = ExplainedVariance(deltas, mean);
  out.direction.assign(mean.begin(), mean.end());
  return out;
}

}  // namespace valuescope::analysis
