#include "analysis/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "base/check.h"

namespace valuescope::analysis {
namespace {

// Continued fraction of the incomplete beta function by Lentz's method (Numerical Recipes, 6.4); it
// converges fast for x < (a + 1) / (a + b + 2).
double BetaFraction(double a, double b, double x) {
  constexpr int kMostTerms = 10000;
  constexpr double kTiny = 1e-300;
  const auto not_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
  double c = 1, d = 1 / not_zero(1 - (a + b) * x / (a + 1)), fraction = d;
  for (int m = 1; m <= kMostTerms; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    double change = 1;
    for (const double term : {even, odd}) {
      d = 1 / not_zero(1 + term * d);
      c = not_zero(1 + term / c);
      change = c * d;
      fraction *= change;
    }
    if (std::abs(change - 1) < std::numeric_limits<double>::epsilon()) break;
  }
  return fraction;
}

// Regularised incomplete beta function I_x(a, b), 0 < x < 1.
double IncompleteBeta(double a, double b, double x) {
  const double front = std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) +
                                a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * BetaFraction(a, b, x) / a;
  return 1 - front * BetaFraction(b, a, 1 - x) / b;
}

}  // namespace

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

int64_t CountOfPercent(double percent, int64_t count) {
  VS_CHECK(percent > 0 && percent <= 100 && count > 0);
  // The small term makes 29 % of 100 neurons 29.
  const double exact = percent / 100.0 * static_cast<double>(count) * (1 + 1e-12);
  return std::clamp<int64_t>(static_cast<int64_t>(exact), 1, count);
}

double StudentQuantile(double probability, double freedom) {
  VS_CHECK(probability > 0.5 && probability < 1 && freedom > 0);
  // t = sqrt(freedom) tan(angle), so that every quantile lies in one bounded range.
  double low = 0, high = std::numbers::pi / 2;
  for (int i = 0; i < std::numeric_limits<double>::digits; ++i) {
    const double angle = (low + high) / 2, cosine = std::cos(angle);
    const double above = IncompleteBeta(freedom / 2, 0.5, cosine * cosine) / 2;
    (above > 1 - probability ? low : high) = angle;
  }
  return std::sqrt(freedom) * std::tan((low + high) / 2);
}

std::optional<ConfidenceInterval> JackknifeInterval(
    std::optional<double> estimate, const std::vector<std::optional<double>>& without) {
  constexpr double kLevel = .95;
  const auto count = static_cast<double>(without.size());
  if (!estimate || without.size() < 3) return std::nullopt;
  double sum = 0, squares = 0;
  for (const std::optional<double>& one : without) {
    if (!one) return std::nullopt;
    sum += *one;
  }
  for (const std::optional<double>& one : without) {
    squares += (*one - sum / count) * (*one - sum / count);
  }
  const double error = std::sqrt((count - 1) / count * squares);
  const double reach = StudentQuantile((1 + kLevel) / 2, count - 1) * error;
  return ConfidenceInterval{*estimate - reach, *estimate + reach, kLevel};
}

ConfidenceInterval WilsonInterval(double successes, double count) {
  VS_CHECK(count > 0 && successes >= 0 && successes <= count);
  constexpr double kZ = 1.959963984540054;  // of the normal distribution, at .975
  const double share = successes / count, factor = 1 / (1 + kZ * kZ / count);
  const double centre = factor * (share + kZ * kZ / (2 * count));
  const double half =
      factor * kZ * std::sqrt(share * (1 - share) / count + kZ * kZ / (4 * count * count));
  return {
      .lower = std::max(0.0, centre - half), .upper = std::min(1.0, centre + half), .level = .95};
}

}  // namespace valuescope::analysis
