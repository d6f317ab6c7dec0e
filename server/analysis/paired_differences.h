// What two ways of answering the same queries differ by, and how sure that is. Answers to one query
// are alike, so queries, not answers, are what a sample is made of: they are drawn, left out and
// turned round as a whole, with their answers in both ways.
//
//   mean        sum of an answer's numbers / answers, of each way over all queries; the interval is
//               that of a percentile bootstrap (Efron 1979) over queries
//   Distinct-n  falls with the length of the text, and in a bootstrap with every query that is
//   drawn
//               twice; so its interval is the estimate and Student's quantile of jackknifed
//               standard errors over queries (Tukey 1958)
//   p           sign flips over queries: under no difference a query's two ways change places
//   without
//               a trace (Fisher 1935); (1 + #{|flipped| >= |observed|}) / (1 + draws), two-sided
//
// All that is drawn follows from a seed.
#ifndef VALUESCOPE_ANALYSIS_PAIRED_DIFFERENCES_H_
#define VALUESCOPE_ANALYSIS_PAIRED_DIFFERENCES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/diversity.h"
#include "analysis/statistics.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

// The answers to one query in both ways.
struct PairedCluster {
  double first_sum = 0, first_count = 0;
  double second_sum = 0, second_count = 0;
};

struct ResamplingOptions {
  int64_t draws = 0;  // at least 1
  uint64_t seed = 0;
};

// Mean of the first way less that of the second; absent where either has no answer.
std::optional<double> MeanDifference(std::span<const PairedCluster> clusters);

// Its 95 % interval; absent with fewer than two clusters, or where a way has no answer. Draws in
// which a way has none are left out. CANCELLED.
absl::StatusOr<std::optional<ConfidenceInterval>> BootstrapDifference(
    std::span<const PairedCluster> clusters, const ResamplingOptions& options,
    const Cancellation& cancellation);

// Two-sided, of the mean over clusters of the difference of their two means, which is 0 where they
// are equal but for rounding; clusters without an answer in either way are left out, and it is
// absent where none is left. CANCELLED.
absl::StatusOr<std::optional<double>> SignFlipPValue(std::span<const PairedCluster> clusters,
                                                     const ResamplingOptions& options,
                                                     const Cancellation& cancellation);

// Holm's (1979) adjustment, in the order of `p_values`: with them all below .05 only where at most
// 5 % of studies without any difference have one.
std::vector<double> HolmAdjusted(std::span<const double> p_values);

// Answers of one way to one query.
using ClusterTexts = std::vector<TokenSpan>;

struct DiversityDifference {
  std::optional<double> distinct;  // of the first way less that of the second
  std::optional<ConfidenceInterval> distinct_interval;
  std::optional<double> expectation_adjusted;
  std::optional<ConfidenceInterval> expectation_adjusted_interval;
};

// Of n-grams, n in 1 .. 16; both ways have as many clusters. Intervals are absent with fewer than
// three clusters, or where a way has no n-gram once some query is left out. V >= 1.
absl::StatusOr<DiversityDifference> JackknifeDiversity(std::span<const ClusterTexts> first,
                                                       std::span<const ClusterTexts> second, int n,
                                                       int64_t vocabulary_size);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_PAIRED_DIFFERENCES_H_
