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
#include "absl/strings/string_view.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "studies/labelled_responses.h"
#include "studies/response_means.h"
#include "studies/stored_vector.h"

namespace valuescope::studies {

// What ResponseMeans gives of responses, one after another: statistics look at every one again, so
// they are kept.
class KeptMeans {
 public:
  // None yet of `responses` with `elements` numbers each, whose memory is the engine's for captures
  // that are kept: its RESOURCE_EXHAUSTED where they do not fit it.
  static absl::StatusOr<KeptMeans> Begin(engine::Engine& engine, int64_t responses,
                                         int64_t elements);

  int64_t count() const { return static_cast<int64_t>(numbers_.size()) / elements_; }
  std::span<const float> of(int64_t response) const {  // [elements]
    return std::span<const float>(numbers_).subspan(static_cast<size_t>(response * elements_),
                                                    static_cast<size_t>(elements_));
  }

  void Add(std::span<const float> mean);  // [elements]
  void Add(const KeptMeans& others);      // in order, behind these

  // Magic, version, elements, count, numbers; little-endian.
  std::string Serialize() const;
  // `done` of `responses`, to which the others can be added. DATA_LOSS for bytes of other numbers.
  static absl::StatusOr<KeptMeans> Parse(engine::Engine& engine, absl::string_view bytes,
                                         int64_t done, int64_t responses, int64_t elements);

 private:
  int64_t elements_ = 1;
  std::vector<float> numbers_;  // [count, elements]
  engine::KeptCaptures memory_;
};

// Runs the responses, few enough to be in memory together, and adds their means in order, and to
// `cached_tokens` the prompt tokens that were found in the cache. INVALID_ARGUMENT naming
// "responses" for what the engine refuses. CANCELLED once `cancellation` is raised.
absl::Status AddMeans(engine::Engine& engine, std::span<const LabelledResponse> responses,
                      const ResponseMeansPlan& plan, const Cancellation& cancellation,
                      KeptMeans& means, int64_t& cached_tokens);

// What the method asks of the responses, apart from both labels: INVALID_ARGUMENT naming
// "responses" (reason TOO_FEW_PAIRS, TOO_MANY_RESPONSES).
absl::Status CheckMethod(v1::ExtractionMethod method, std::span<const LabelledResponse> responses);

// What a request chooses, beside the responses.
struct ExtractionOptions {
  v1::ExtractionMethod method = v1::EXTRACTION_METHOD_DIFFERENCE_IN_MEANS;
  v1::Pooling pooling = v1::POOLING_RESPONSE_MEAN;
  bool intervals = true;
  double inverse_regularization = 1;  // of LINEAR_PROBE
};

// The tokens that a pooling is over.
engine::TokenKind TokensOf(v1::Pooling pooling);

struct ExtractedVector {
  std::vector<float> rows;                       // [rows, width]
  std::vector<v1::VectorStatistics> statistics;  // one a row
  std::vector<std::string> warnings;
};

// `means` are those of all responses of the set, in order, `width` numbers a row, and behind the
// rows the token norms, if the plan wanted them. `layers` ascend, and are empty at sites without
// layers. INVALID_ARGUMENT naming "responses": a label without responses (reason EMPTY_LABEL), too
// few pairs or too many responses for the method (TOO_FEW_PAIRS, TOO_MANY_RESPONSES); CheckMethod
// tells so before anything runs. Deterministic.
absl::StatusOr<ExtractedVector> ExtractVector(const ResponseSet& set, const KeptMeans& means,
                                              std::span<const int> layers, int64_t width,
                                              const ExtractionOptions& options,
                                              const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_EXTRACT_VECTORS_H_
