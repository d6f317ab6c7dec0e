// Extraction of a value vector (Han et al., arXiv 2509.24319): every labelled response runs through
// the model once, its activations are averaged over the response's tokens on the device, or one of
// them is read, and a method makes the vector of a layer of what that gives: the mean over
// expressing responses minus the mean over non-expressing ones, unless another is chosen.
#ifndef VALUESCOPE_STUDIES_EXTRACT_VECTORS_H_
#define VALUESCOPE_STUDIES_EXTRACT_VECTORS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "studies/kept_means.h"
#include "studies/labelled_responses.h"
#include "studies/response_means.h"
#include "studies/response_selection.h"
#include "studies/stored_vector.h"
#include "studies/summed_means.h"

namespace valuescope::studies {

// What the method asks of the responses, apart from both labels: INVALID_ARGUMENT naming
// "responses" (reason TOO_FEW_PAIRS, TOO_MANY_RESPONSES).
absl::Status CheckMethod(v1::ExtractionMethod method, const ResponseSet& set,
                         const ResponseSelection& selection);

// What a request chooses, beside the responses.
struct ExtractionOptions {
  v1::ExtractionMethod method = v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS;
  v1::Pooling pooling = v1::POOLING_RESPONSE_MEAN;
  bool intervals = true;
  double inverse_regularization = 1;  // of LINEAR_PROBE
};

// The tokens that a pooling is over.
engine::TokenKind TokensOf(v1::Pooling pooling);

// How each response that is selected counts in sums, [selected], in order.
std::vector<SummedMeans::Place> PlacesOf(const ResponseSet& set, const ResponseSelection& selection,
                                         v1::Pooling pooling);

// Runs the responses, few enough to be in memory together, and adds their means in order, and to
// `cached_tokens` the prompt tokens that were found in the cache. INVALID_ARGUMENT naming
// "responses" for what the engine refuses. CANCELLED once `cancellation` is raised.
absl::Status AddMeans(engine::Engine& engine, std::span<const LabelledResponse> responses,
                      const ResponseMeansPlan& plan, const Cancellation& cancellation,
                      KeptMeans& means, int64_t& cached_tokens);
// The same to the sums of several vectors, each of which has its places among the responses of the
// set, of which these are number `first` and those that follow: they run once.
absl::Status AddMeans(engine::Engine& engine, std::span<const LabelledResponse> responses,
                      int64_t first, std::span<const std::vector<SummedMeans::Place>> places,
                      const ResponseMeansPlan& plan, const Cancellation& cancellation,
                      std::span<SummedMeans> sums, int64_t& cached_tokens);

struct ExtractedVector {
  std::vector<float> rows;                       // [rows, width]
  std::vector<v1::VectorStatistics> statistics;  // one a row
  std::vector<std::string> warnings;
};

// What ExtractVector holds beside the means, bytes: it grows with pairs for PCA and with responses
// for a probe, and is bounded for differences in means.
int64_t WorkingBytes(const ResponseSet& set, const ResponseSelection& selection, int64_t width,
                     v1::ExtractionMethod method);
// The same of so many; groups are queries, of PCA those with both labels.
int64_t WorkingBytes(int64_t responses, int64_t groups, int64_t width, v1::ExtractionMethod method);

// Of the selected responses. `means` are those of all responses of the set, in order. `layers`
// ascend, and are empty at sites without layers. WorkingBytes are the engine's for captures that
// are kept: its RESOURCE_EXHAUSTED where they do not fit it. INVALID_ARGUMENT naming "responses": a
// label without responses (reason EMPTY_LABEL), too few pairs or too many responses for the method
// (TOO_FEW_PAIRS, TOO_MANY_RESPONSES); CheckMethod tells so before anything runs. Deterministic.
absl::StatusOr<ExtractedVector> ExtractVector(engine::Engine& engine, const ResponseSet& set,
                                              const ResponseSelection& selection,
                                              const KeptMeans& means, std::span<const int> layers,
                                              const ExtractionOptions& options,
                                              const Cancellation& cancellation);

// The same from sums of the selected responses alone, of DIFFERENCE_IN_MEANS: statistics that need
// the means of all responses are missing (reason TOO_LARGE).
absl::StatusOr<ExtractedVector> ExtractVector(const ResponseSet& set,
                                              const ResponseSelection& selection,
                                              const SummedMeans& sums, std::span<const int> layers,
                                              const ExtractionOptions& options);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_EXTRACT_VECTORS_H_
