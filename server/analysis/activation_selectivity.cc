#include "analysis/activation_selectivity.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

using Probabilities = std::span<const std::vector<double>>;  // [values][neurons]

absl::Status CheckInput(Probabilities probabilities, const SelectivityOptions& options) {
  if (probabilities.size() < 2 || probabilities.size() > kMostSelectivityValues) {
    return OutOfRange("probabilities", static_cast<double>(probabilities.size()), 2,
                      static_cast<double>(kMostSelectivityValues));
  }
  for (size_t k = 0; k < probabilities.size(); ++k) {
    const std::vector<double>& values = probabilities[k];
    const bool in_range =
        std::all_of(values.begin(), values.end(), [](double p) { return p >= 0 && p <= 1; });
    if (in_range && !values.empty() && values.size() == probabilities.front().size()) continue;
    return InvalidField(absl::StrCat("probabilities[", k, "]"),
                        "must have a number from 0 to 1 for each neuron, as many as the others");
  }
  if (!(options.activity_percentile >= 0 && options.activity_percentile <= 100)) {
    return OutOfRange("activity_percentile", options.activity_percentile, 0, 100);
  }
  if (!(options.top_percent > 0 && options.top_percent <= 100)) {
    return InvalidField("top_percent", "must be above 0 and at most 100", "OUT_OF_RANGE");
  }
  return absl::OkStatus();
}

double Percentile(Probabilities probabilities, double percentile) {
  std::vector<double> all;
  all.reserve(probabilities.size() * probabilities.front().size());
  for (const std::vector<double>& values : probabilities) {
    all.insert(all.end(), values.begin(), values.end());
  }
  return *Quantile(std::move(all), percentile / 100);
}

// log K - H of one neuron.
double ScoreOf(Probabilities probabilities, size_t neuron) {
  double sum = 0, entropy = 0;
  for (const std::vector<double>& values : probabilities) sum += values[neuron];
  if (sum == 0) return 0;
  for (const std::vector<double>& values : probabilities) {
    const double share = values[neuron] / sum;
    if (share > 0) entropy -= share * std::log(share);
  }
  // Rounding may leave an entropy above its bound.
  return std::max(0.0, std::log(static_cast<double>(probabilities.size())) - entropy);
}

uint64_t ValuesOf(Probabilities probabilities, size_t neuron, double threshold) {
  uint64_t values = 0;
  for (size_t k = 0; k < probabilities.size(); ++k) {
    const double p = probabilities[k][neuron];
    if (p > 0 && p >= threshold) values |= uint64_t{1} << k;
  }
  return values;
}

}  // namespace

absl::StatusOr<ActivationSelectivity> ScoreSelectivity(Probabilities probabilities,
                                                       const SelectivityOptions& options) {
  VS_RETURN_IF_ERROR(CheckInput(probabilities, options));
  const size_t neurons = probabilities.front().size();
  ActivationSelectivity out;
  out.activity_threshold = Percentile(probabilities, options.activity_percentile);
  out.scores.resize(neurons);
  out.values.resize(neurons);
  for (size_t i = 0; i < neurons; ++i) {
    out.scores[i] = ScoreOf(probabilities, i);
    out.values[i] = ValuesOf(probabilities, i, out.activity_threshold);
    if (out.values[i] != 0) out.members.push_back(static_cast<int64_t>(i));
  }
  const int64_t most = CountOfPercent(options.top_percent, static_cast<int64_t>(neurons));
  const auto count = std::min<int64_t>(most, static_cast<int64_t>(out.members.size()));
  const auto rank = [&out](int64_t i) {
    return std::make_tuple(-out.scores[static_cast<size_t>(i)], i);
  };
  std::partial_sort(out.members.begin(), out.members.begin() + count, out.members.end(),
                    [&rank](int64_t a, int64_t b) { return rank(a) < rank(b); });
  out.members.resize(static_cast<size_t>(count));
  return out;
}

}  // namespace valuescope::analysis
