// What all ways of extracting value vectors from labelled responses have in common: the responses,
// how they divide, and the vectors with the numbers that tell how far to trust them.
//
// Queries. Responses of one query may be alike, so it is queries that are independent. Split-half
// agreement and the held-out AUROC divide the responses in two: all responses of a query stay
// together, and queries alternate in order of first appearance within each composition of labels
// (both, expressing alone, not expressing alone). Both halves then have both labels unless all
// responses of a label answer one query. The vector of a half is what the same method makes of its
// responses.
#ifndef VALUESCOPE_ANALYSIS_EXTRACTION_H_
#define VALUESCOPE_ANALYSIS_EXTRACTION_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "analysis/squared_norm_interval.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

// Activations that are somewhere else than in memory.
class ActivationReader {
 public:
  virtual ~ActivationReader() = default;
  // Coordinates begin .. begin + out.size() - 1 of a(r) at a layer, float32.
  virtual absl::Status Read(int64_t response, int64_t layer, int64_t begin,
                            std::span<float> out) const = 0;
};

// a(r) [num_layers, width] of one response, as the reader numbers it. The reader is the caller's
// and outlives the call.
struct StoredActivations {
  const ActivationReader* reader;
  int64_t response;
};

struct LabelledActivations {
  bool expresses = false;
  // Query that the response answers; empty: a query of its own.
  std::string query_id = {};
  // a(r) [num_layers, width] row-major, the mean over the tokens of response r; memory is the
  // caller's and outlives the call.
  std::variant<std::span<const float>, std::span<const double>, StoredActivations> mean_activations;
  // Number of tokens behind the mean and, per layer [num_layers], the sum of |x| over them. Left
  // empty where token norms are not known.
  int64_t num_tokens = 0;
  std::span<const double> token_norm_sums = {};
};

// Why a number is absent.
enum class Absence : uint8_t {
  kOneResponse,      // of a label: it has no covariance
  kOneQuery,         // of a label: neither a second half nor the variance between queries has it
  kZeroVector,       // the vector, or that of a half: it has no direction
  kOppositeHalves,   // their cosine is -1, for which there is no reliability
  kZeroActivations,  // of all responses: nothing to be relative to
  kMethod,           // the number has no meaning for the method
  kFewPairs,         // a half has too few for the method
  kTooLarge,         // it takes another look at responses of which sums alone are kept
};

struct AbsentStatistic {
  absl::string_view name;  // of a member of LayerVector
  Absence why;
};

// The vector of one layer. What the data cannot give is absent, and `absent` says why.
struct LayerVector {
  std::vector<float> vector;  // [width]
  double norm = 0;            // |v|, before rounding to float32
  // |v| / mean |x|: over tokens if every response told its token norms, else over the responses'
  // a(r), whose norms are somewhat smaller.
  std::optional<double> relative_norm;
  // Cosine of the vectors of the two halves.
  std::optional<double> split_half_cosine;
  // Spearman-Brown reliability 2 r / (1 + r) of it.
  std::optional<double> reliability;
  // Each half's responses projected on the other half's vector, U / (n1 n0) with ties one half;
  // mean of the two halves.
  std::optional<double> auroc;

  // Of differences in means alone: traces of the covariances of a(r) within each label, divided by
  // n - 1;
  std::optional<double> expressing_covariance_trace;
  std::optional<double> non_expressing_covariance_trace;
  // |v|^2 less the noise in it if all responses are independent, an estimate of the true |v|^2; may
  // be negative;
  std::optional<double> debiased_squared_norm;
  // the same if only queries are; may be negative;
  std::optional<double> clustered_squared_norm;
  // interval of the true |v|^2, about clustered_squared_norm; bounds may be negative;
  std::optional<ConfidenceInterval> squared_norm_interval;
  // of the true |v|: the root of that, 0 where a bound is negative.
  std::optional<ConfidenceInterval> norm_interval;

  // Of principal components alone: the share of the summed squares that lies along it.
  std::optional<double> explained_variance;
  // Of linear probes alone.
  std::optional<double> intercept;
  // Whether the search for the vector came to its end; see the method.
  bool settled = true;
  std::vector<AbsentStatistic> absent;  // intervals that were left out are not
};

struct ValueVectors {
  std::vector<LayerVector> layers;  // [num_layers], in the caller's order of layers
  int64_t num_expressing = 0;
  int64_t num_non_expressing = 0;
  int64_t num_queries = 0;
  int64_t num_pairs = 0;  // queries with responses of both labels
  // Whether relative_norm divides by the mean norm over tokens.
  bool relative_norm_over_tokens = false;
};

using Responses = std::span<const LabelledActivations>;

// 1 if it expresses the value, else 0.
int LabelIndex(const LabelledActivations& response);

// INVALID_ARGUMENT, naming `responses[i]...`: no response of a label (reason EMPTY_LABEL), a length
// other than num_layers * width, a non-finite element, token norms without tokens, with
// `weigh_by_tokens` a response whose tokens are not known. A reader's error.
absl::Status CheckResponses(Responses responses, int64_t num_layers, int64_t width,
                            bool weigh_by_tokens);

// How the responses divide, the same for all layers.
struct Grouping {
  int64_t num_queries = 0;
  std::vector<int64_t> query;  // [num_responses] in order of first appearance
  std::vector<int> half;       // [num_responses] 0 or 1
  // What each response counts in the means of its label, [num_responses]: 1, or its tokens.
  std::vector<double> weight;
  // [num_queries] responses of each label, and the sum of their weights
  std::vector<std::array<int64_t, 2>> query_sizes;
  std::vector<std::array<double, 2>> query_weights;
  std::array<int64_t, 2> label_sizes = {0, 0};
  std::array<double, 2> label_weights = {0, 0};
  std::array<int64_t, 2> label_queries = {0, 0};  // that have a response of the label
  // [num_queries] place of each query where those that only express come first and those that only
  // do not come last: neighbours of a label, so that several of them are in several clusters.
  std::vector<int64_t> place;

  // Whether responses of either label answer more than one query.
  bool independent() const { return label_queries[0] > 1 && label_queries[1] > 1; }
  bool HasBoth(int64_t q) const { return query_sizes[q][0] > 0 && query_sizes[q][1] > 0; }
};

Grouping GroupingOf(Responses responses, bool weigh_by_tokens);

// Counts of what was grouped, no layers yet.
ValueVectors CountsOf(Responses responses, const Grouping& grouping);

// Coordinates begin .. begin + out.size() - 1 of a(r) at one layer of `width`, in float64. A
// reader's error.
absl::Status ReadPart(const LabelledActivations& response, int64_t layer, int64_t width,
                      int64_t begin, std::span<double> out);
// a(r) of one layer, [width].
inline absl::Status ReadRow(const LabelledActivations& response, int64_t layer,
                            std::span<double> row) {
  return ReadPart(response, layer, static_cast<int64_t>(row.size()), /*begin=*/0, row);
}

using HalfVectors = std::array<std::vector<double>, 2>;  // [half][width]

// Sets how far the halves' vectors agree. Both halves have both labels.
void SetHalfAgreement(const HalfVectors& halves, LayerVector& out);
// Sets all that is measured on the halves: that, and the AUROC. A reader's error.
absl::Status SetHeldOutStatistics(Responses responses, const Grouping& grouping, int64_t layer,
                                  const HalfVectors& halves, LayerVector& out);
// Says why there is none of it.
void SetNoHeldOutStatistics(Absence why, LayerVector& out);
// Says that the length of the vector, and what is made of it, has no meaning; with `intervals`
// those were asked for.
void SetNoLengthStatistics(bool intervals, LayerVector& out);

// CANCELLED.
absl::Status ExtractionCancelled();

// `out` with the vectors of layers 0 .. num_layers - 1, each as `compute` makes it. Its first
// error; CANCELLED, which is looked at between layers.
absl::StatusOr<ValueVectors> WithLayers(
    ValueVectors out, int64_t num_layers, const Cancellation& cancellation,
    const std::function<absl::StatusOr<LayerVector>(int64_t layer)>& compute);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_EXTRACTION_H_
