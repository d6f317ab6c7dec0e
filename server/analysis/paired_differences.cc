#include "analysis/paired_differences.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "base/check.h"
#include "base/error.h"
#include "base/split_mix.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

constexpr double kLevel = .95;
constexpr int64_t kDrawsBetweenLooks = 64;
// Of means, relative to their size: what differs by less is equal.
constexpr double kRounding = 1e-12;

struct Sums {
  double first_sum = 0, first_count = 0;
  double second_sum = 0, second_count = 0;

  void Add(const PairedCluster& cluster) {
    first_sum += cluster.first_sum;
    first_count += cluster.first_count;
    second_sum += cluster.second_sum;
    second_count += cluster.second_count;
  }
  std::optional<double> Difference() const {
    if (first_count <= 0 || second_count <= 0) return std::nullopt;
    return first_sum / first_count - second_sum / second_count;
  }
};

// --- Distinct n-grams ----------------------------------------------------------------------------

struct NgramCounts {
  double ngrams = 0, distinct = 0;

  std::optional<double> Distinct() const {
    if (ngrams <= 0) return std::nullopt;
    return distinct / ngrams;
  }
  std::optional<double> ExpectationAdjusted(double vocabulary) const {
    if (ngrams <= 0) return std::nullopt;
    return ExpectationAdjustedDistinct(distinct, ngrams, vocabulary);
  }
};

// Of one way: of all clusters together, and what each takes away when it is left out, which is the
// n-grams that no other cluster has.
struct ClusteredNgrams {
  NgramCounts whole;
  std::vector<NgramCounts> of_cluster;  // [clusters]

  NgramCounts Without(size_t cluster) const {
    return {.ngrams = whole.ngrams - of_cluster[cluster].ngrams,
            .distinct = whole.distinct - of_cluster[cluster].distinct};
  }
};

ClusteredNgrams CountNgrams(std::span<const ClusterTexts> clusters, size_t n) {
  constexpr size_t kSeveral = SIZE_MAX;
  std::map<std::vector<int32_t>, size_t> owner;  // the one cluster that has it
  ClusteredNgrams counts;
  counts.of_cluster.resize(clusters.size());
  for (size_t c = 0; c < clusters.size(); ++c) {
    for (const TokenSpan text : clusters[c]) {
      for (size_t i = 0; i + n <= text.size(); ++i) {
        ++counts.of_cluster[c].ngrams;
        const auto ngram = text.subspan(i, n);
        const auto [place, is_new] = owner.try_emplace({ngram.begin(), ngram.end()}, c);
        if (!is_new && place->second != c) place->second = kSeveral;
      }
    }
    counts.whole.ngrams += counts.of_cluster[c].ngrams;
  }
  counts.whole.distinct = static_cast<double>(owner.size());
  for (const auto& [ngram, cluster] : owner) {
    if (cluster != kSeveral) ++counts.of_cluster[cluster].distinct;
  }
  return counts;
}

std::optional<double> Minus(std::optional<double> first, std::optional<double> second) {
  if (!first || !second) return std::nullopt;
  return *first - *second;
}

}  // namespace

std::optional<double> MeanDifference(std::span<const PairedCluster> clusters) {
  Sums sums;
  for (const PairedCluster& cluster : clusters) sums.Add(cluster);
  return sums.Difference();
}

absl::StatusOr<std::optional<ConfidenceInterval>> BootstrapDifference(
    std::span<const PairedCluster> clusters, const ResamplingOptions& options,
    const Cancellation& cancellation) {
  VS_CHECK(options.draws >= 1);
  if (clusters.size() < 2 || !MeanDifference(clusters)) return std::nullopt;
  std::vector<double> differences;
  differences.reserve(static_cast<size_t>(options.draws));
  uint64_t drawn = 0;
  for (int64_t draw = 0; draw < options.draws; ++draw) {
    if (draw % kDrawsBetweenLooks == 0) VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    Sums sums;
    for (size_t i = 0; i < clusters.size(); ++i) {
      sums.Add(clusters[SplitMix64(options.seed, drawn++) % clusters.size()]);
    }
    if (const std::optional<double> difference = sums.Difference()) {
      differences.push_back(*difference);
    }
  }
  const std::optional<double> lower = Quantile(differences, (1 - kLevel) / 2);
  const std::optional<double> upper = Quantile(std::move(differences), (1 + kLevel) / 2);
  if (!lower) return std::nullopt;
  return ConfidenceInterval{*lower, *upper, kLevel};
}

absl::StatusOr<std::optional<double>> SignFlipPValue(std::span<const PairedCluster> clusters,
                                                     const ResamplingOptions& options,
                                                     const Cancellation& cancellation) {
  VS_CHECK(options.draws >= 1);
  std::vector<double> differences;
  double observed = 0, size = 0;
  for (const PairedCluster& cluster : clusters) {
    Sums sums;
    sums.Add(cluster);
    std::optional<double> difference = sums.Difference();
    if (!difference) continue;
    const double scale =
        std::abs(sums.first_sum / sums.first_count) + std::abs(sums.second_sum / sums.second_count);
    if (std::abs(*difference) <= kRounding * scale) difference = 0;
    differences.push_back(*difference);
    observed += *difference;
    size += std::abs(*difference);
  }
  if (differences.empty()) return std::nullopt;
  // Sums that are equal but for the order of rounding count as equal.
  const double at_least = std::abs(observed) - kRounding * size;
  int64_t as_large = 0;
  uint64_t drawn = 0;
  for (int64_t draw = 0; draw < options.draws; ++draw) {
    if (draw % kDrawsBetweenLooks == 0) VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    double sum = 0;
    for (const double difference : differences) {
      sum += (SplitMix64(options.seed, drawn++) >> 63) != 0 ? -difference : difference;
    }
    if (std::abs(sum) >= at_least) ++as_large;
  }
  return static_cast<double>(1 + as_large) / static_cast<double>(1 + options.draws);
}

std::vector<double> HolmAdjusted(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return p_values[a] < p_values[b]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) {
    const auto left = static_cast<double>(order.size() - rank);
    largest = std::max(largest, std::min(1.0, left * p_values[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

absl::StatusOr<DiversityDifference> JackknifeDiversity(std::span<const ClusterTexts> first,
                                                       std::span<const ClusterTexts> second, int n,
                                                       int64_t vocabulary_size) {
  VS_CHECK(first.size() == second.size());
  if (n < 1 || n > 16) return OutOfRange("n", n, 1, 16);
  if (vocabulary_size < 1) return InvalidField("vocabulary", "must be at least 1");
  const auto vocabulary = static_cast<double>(vocabulary_size);
  const ClusteredNgrams of_first = CountNgrams(first, static_cast<size_t>(n));
  const ClusteredNgrams of_second = CountNgrams(second, static_cast<size_t>(n));
  const auto distinct = [](const NgramCounts& a, const NgramCounts& b) {
    return Minus(a.Distinct(), b.Distinct());
  };
  const auto adjusted = [&](const NgramCounts& a, const NgramCounts& b) {
    return Minus(a.ExpectationAdjusted(vocabulary), b.ExpectationAdjusted(vocabulary));
  };
  std::vector<std::optional<double>> distinct_without, adjusted_without;
  for (size_t c = 0; c < first.size(); ++c) {
    distinct_without.push_back(distinct(of_first.Without(c), of_second.Without(c)));
    adjusted_without.push_back(adjusted(of_first.Without(c), of_second.Without(c)));
  }
  DiversityDifference difference;
  difference.distinct = distinct(of_first.whole, of_second.whole);
  difference.distinct_interval = JackknifeInterval(difference.distinct, distinct_without);
  difference.expectation_adjusted = adjusted(of_first.whole, of_second.whole);
  difference.expectation_adjusted_interval =
      JackknifeInterval(difference.expectation_adjusted, adjusted_without);
  return difference;
}

}  // namespace valuescope::analysis
