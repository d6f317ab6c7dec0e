// Value vectors as differences in means (Han et al., arXiv 2509.24319): at each layer, the mean
// over expressing responses of a(r) minus the mean over non-expressing ones, where a(r) is the mean
// activation over the tokens of response r. Raw, not normalised. With each vector come the numbers
// that tell how far to trust it.
//
// Halves. Split-half agreement and the held-out AUROC divide the responses in two: queries
// alternate in order of first appearance and all responses of a query stay together. Where every
// query has one response, responses alternate within each label instead, so that both halves have
// both labels.
#ifndef VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_
#define VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

struct LabelledActivations {
  bool expresses = false;
  // Query that the response answers; empty: a query of its own.
  std::string query_id = {};
  // a(r) [num_layers, width] row-major; the memory is the caller's and outlives the call.
  std::variant<std::span<const float>, std::span<const double>> mean_activations;
  // Number of tokens behind the mean and, per layer [num_layers], the sum of |x| over them. Left
  // empty where token norms are not known.
  int64_t num_tokens = 0;
  std::span<const double> token_norm_sums = {};
};

struct DifferenceInMeansOptions {
  // Resamples of the bootstrap, 0 .. 10000; 0 leaves the interval out. The cost is about
  // resamples x queries x num_layers x width multiplications.
  int bootstrap_resamples = 200;
  // Coverage of the interval, in (0, 1).
  double interval_level = 0.95;
  uint64_t seed = 0;
};

struct ConfidenceInterval {
  double lower = 0;
  double upper = 0;
  double level = 0;
};

// The vector of one layer. A number that the data cannot give (one query, a zero vector, one
// response of a label) is absent.
struct LayerDifference {
  std::vector<float> vector;  // [width]
  double norm = 0;            // |v|, before rounding to float32
  // |v| / mean |x|: over response tokens if every response told its token norms, else over the
  // responses' a(r), whose norms are somewhat smaller.
  std::optional<double> relative_norm;
  // Cosine of the vectors of the two halves.
  std::optional<double> split_half_cosine;
  // Spearman-Brown reliability 2 r / (1 + r) of it.
  std::optional<double> reliability;
  // Each half's responses projected on the other half's vector, U / (n1 n0) with ties one half;
  // mean of the two halves.
  std::optional<double> auroc;
  // Traces of the covariances of a(r) within each label, divided by n - 1.
  std::optional<double> expressing_covariance_trace;
  std::optional<double> non_expressing_covariance_trace;
  // |v|^2 - tr(S1) / n1 - tr(S0) / n0, an unbiased estimate of the true |v|^2; may be negative.
  std::optional<double> debiased_squared_norm;
  // Percentile bootstrap of |v| over resampled queries; resamples that lack a label are drawn
  // again.
  std::optional<ConfidenceInterval> norm_interval;
};

struct DifferenceInMeans {
  std::vector<LayerDifference> layers;  // [num_layers], in the caller's order of layers
  int64_t num_expressing = 0;
  int64_t num_non_expressing = 0;
  int64_t num_queries = 0;
  // Whether relative_norm divides by the mean norm over tokens.
  bool relative_norm_over_tokens = false;
};

// INVALID_ARGUMENT, naming `responses[i]...` or `options...`: no response of a label (reason
// EMPTY_LABEL), a length other than num_layers * width, a non-finite element, token norms without
// tokens, options out of range. num_layers and width >= 1. CANCELLED soon after `cancellation` is
// raised: it is looked at between layers and between batches of resamples. Deterministic: the same
// input gives the same bits. Takes little memory beside the activations, which are the caller's: 64
// bytes a coordinate of one layer, and 8 KiB a query and label.
absl::StatusOr<DifferenceInMeans> ComputeDifferenceInMeans(
    std::span<const LabelledActivations> responses, int64_t num_layers, int64_t width,
    const DifferenceInMeansOptions& options = {}, const Cancellation& cancellation = {});

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_
