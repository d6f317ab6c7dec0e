// Value vectors as differences in means (Han et al., arXiv 2509.24319): at each layer, the mean
// over expressing responses of a(r) minus the mean over non-expressing ones, where a(r) is the mean
// activation over the tokens of response r. Raw, not normalised. With each vector come the numbers
// that tell how far to trust it.
//
// Queries. Responses of one query may be alike, so it is queries that are independent. Split-half
// agreement and the held-out AUROC divide the responses in two: all responses of a query stay
// together, and queries alternate in order of first appearance within each composition of labels
// (both, expressing alone, not expressing alone). Both halves then have both labels unless all
// responses of a label answer one query. Intervals rest on the variance between queries, a
// jackknife that is scaled so that it has no bias where responses are independent (Bell and
// McCaffrey): with each query's responses less the mean of their label, added up by label l,
//   e_q = sum_l +- (1 - n_ql / n_l)^(-1/2) (sum of them) / n_l
// e_q e_q' sum to the covariance of v. With one response a query its trace is tr(S1) / n1 +
// tr(S0) / n0.
#ifndef VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_
#define VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/squared_norm_interval.h"
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
  // Leaves the intervals out. They cost about m^2 / 2 x num_layers x width multiplications, m the
  // number of queries, at most 256: more of them are taken together in the intervals' widths.
  bool intervals = true;
  // Coverage of the intervals, 0.9 .. 1 and below 1.
  double interval_level = 0.95;
};

// Why a number is absent.
enum class Absence : uint8_t {
  kOneResponse,      // of a label: it has no covariance
  kOneQuery,         // of a label: neither a second half nor the variance between queries has it
  kZeroVector,       // of a half: it has no direction
  kOppositeHalves,   // their cosine is -1, for which there is no reliability
  kZeroActivations,  // of all responses: nothing to be relative to
};

struct AbsentStatistic {
  absl::string_view name;  // of a member of LayerDifference
  Absence why;
};

// The vector of one layer. What the data cannot give is absent, and `absent` says why.
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
  // |v|^2 - tr(S1) / n1 - tr(S0) / n0; may be negative. An unbiased estimate of the true |v|^2 if
  // all responses are independent.
  std::optional<double> debiased_squared_norm;
  // |v|^2 - sum_q |e_q|^2, the same if only queries are; may be negative.
  std::optional<double> clustered_squared_norm;
  // Of the true |v|^2, about clustered_squared_norm; bounds may be negative.
  std::optional<ConfidenceInterval> squared_norm_interval;
  // Of the true |v|: the root of that, 0 where a bound is negative.
  std::optional<ConfidenceInterval> norm_interval;
  std::vector<AbsentStatistic> absent;  // intervals that were left out are not
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
// raised: it is looked at between layers and several times within each. Deterministic: the same
// input gives the same bits. Takes little memory beside the activations, which are the caller's: 64
// bytes a coordinate of one layer, and 24 KiB a query.
absl::StatusOr<DifferenceInMeans> ComputeDifferenceInMeans(
    std::span<const LabelledActivations> responses, int64_t num_layers, int64_t width,
    const DifferenceInMeansOptions& options = {}, const Cancellation& cancellation = {});

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_DIFFERENCE_IN_MEANS_H_
