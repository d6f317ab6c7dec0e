// Small statistics that the analyses share.
#ifndef VALUESCOPE_ANALYSIS_STATISTICS_H_
#define VALUESCOPE_ANALYSIS_STATISTICS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace valuescope::analysis {

// Area under the ROC curve, U / (n1 n0) of Mann and Whitney: the probability that a positive score
// exceeds a negative one, ties counting one half. Absent if either side is empty.
std::optional<double> AreaUnderRoc(std::span<const double> positive_scores,
                                   std::span<const double> negative_scores);

// Reliability of the whole from the correlation r of its halves, 2 r / (1 + r) (Spearman and
// Brown). Absent for r <= -1, where it has no value.
std::optional<double> SpearmanBrown(double half_correlation);

// Quantile `probability` (0 .. 1) by linear interpolation between order statistics: place
// probability * (n - 1) of the sorted values. Absent for no values.
std::optional<double> Quantile(std::vector<double> values, double probability);

// How many of `count` > 0 are `percent`, in (0, 100], of them: the floor, at least one.
int64_t CountOfPercent(double percent, int64_t count);

// Quantile `probability`, in (0.5, 1), of Student's distribution with `freedom` > 0 degrees of
// freedom, which need not be whole.
double StudentQuantile(double probability, double freedom);

// So many standard errors to either side hold 95 % of the normal distribution.
inline constexpr double kWithin95 = 1.96;

struct ConfidenceInterval {
  double lower = 0;
  double upper = 0;
  double level = 0;  // its coverage, such as .95
};

// Jackknifed 95 % interval (Tukey 1958) of `estimate`, which is without[c] where cluster c is left
// out: Student's quantile of standard errors. Absent with fewer than three clusters, or where one
// of the numbers is.
std::optional<ConfidenceInterval> JackknifeInterval(
    std::optional<double> estimate, const std::vector<std::optional<double>>& without);

// Wilson's 95 % interval of a proportion, of `count` > 0 trials of which `successes` >= 0
// succeeded, which need not be whole: a tie may count one half.
ConfidenceInterval WilsonInterval(double successes, double count);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_STATISTICS_H_
