// Measures of the texts of each condition (TextMeasures of the contract): how varied they are
// together (analysis/diversity.h), what they are one by one (studies/text_checks.h), and how likely
// the model finds them.
#ifndef VALUESCOPE_STUDIES_MEASURE_TEXTS_H_
#define VALUESCOPE_STUDIES_MEASURE_TEXTS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "analysis/diversity.h"
#include "base/cancellation.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::studies {

// What is known of one text.
struct MeasuredText {
  const std::string* condition = nullptr;
  analysis::TokenSpan ids;  // [tokens], without those that end a turn; may be empty
  bool coherent = false;
  bool refuses = false;
  uint64_t followed = 0;  // bit i: instruction i
  double logprob = 0;     // summed over its tokens, where it was asked for
};

// Defaults filled in. INVALID_ARGUMENT naming "ngrams[i]", "ngrams", "vocabulary" or
// "self_bleu_texts". `vocabulary` is the model's.
absl::StatusOr<v1::MeasureTextsRequest> WithDefaults(const v1::MeasureTextsRequest& request,
                                                     int64_t vocabulary);

// `measures` and `warnings`, nothing else. The request has its defaults filled in. CANCELLED
// between two measures.
absl::StatusOr<v1::MeasureTextsResponse> MeasureTexts(const v1::MeasureTextsRequest& request,
                                                      std::span<const MeasuredText> texts,
                                                      const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_MEASURE_TEXTS_H_
