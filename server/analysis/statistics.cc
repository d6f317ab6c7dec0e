#include "analysis/statistics.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace valuescope::analysis {

std::optional<double> AreaUnderRoc(std::span<const double> positive_scores,
                                   std::span<const double> negative_scores) {
  if (positive_scores.empty() || negative_scores.empty()) return std::nullopt;
  std::vector<double> negatives(negative_scores.begin(), negative_scores.end());
  std::sort(negatives.begin(), negatives.end());
  double wins = 0;
  for (const double score : positive_scores) {
    const auto [first_equal, first_greater] =
        std::equal_range(negatives.begin(), negatives.end(), score);
    wins += static_cast<double>(first_equal - negatives.begin()) +
            0.5 * static_cast<double>(first_greater - first_equal);
  }
  return wins / (static_cast<double>(positive_scores.size()) * negatives.size());
}

std::optional<double> SpearmanBrown(double half_correlation) {
  if (!(half_correlation > -1)) return std::nullopt;
  return 2 * half_correlation / (1 + half_correlation);
}

std::optional<double> Quantile(std::vector<double> values, double probability) {
  VS_CHECK(probability >= 0 && probability <= 1);
  if (values.empty()) return std::nullopt;
  std::sort(values.begin(), values.end());
  const double place = probability * static_cast<double>(values.size() - 1);
  const size_t below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace valuescope::analysis
