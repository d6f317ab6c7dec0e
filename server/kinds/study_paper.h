// What a study found beside what the paper found (Han et al., arXiv 2509.24319), quantity by
// quantity: on which side of a boundary the paper's number lies, the number here, and whether its
// interval lies there too. Numbers of answers that broke the guard say nothing, and are not held
// against anything.
#ifndef VALUESCOPE_KINDS_STUDY_PAPER_H_
#define VALUESCOPE_KINDS_STUDY_PAPER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "analysis/statistics.h"
#include "google/protobuf/repeated_field.h"
#include "kinds/study_answers.h"
#include "kinds/study_gathering.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/studies.pb.h"

namespace valuescope::kinds {

// Of a value whose outcomes are told. `questionnaires` by outcome; `vocabulary` is V of EAD.
absl::Status AddPaperQuantities(
    const StudyGathering& gathering, const ScoredAnswers& answers,
    const std::map<std::string, v1::QuestionnaireResult>& questionnaires, int64_t vocabulary,
    const v1::StudiedValue& value,
    google::protobuf::RepeatedPtrField<v1::PaperQuantity>& quantities);

// Over the values, of the mean over the layers.
struct IntervalsOverValues {
  std::optional<analysis::ConfidenceInterval> explained_variance, mean_pairwise_cosine, r_squared;
};

// Of all values together, once mean deltas and circumplexes are told.
void AddPaperQuantitiesOverValues(const IntervalsOverValues& intervals,
                                  v1::ValueStudyResult& result);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_PAPER_H_
