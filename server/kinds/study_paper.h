// What a study found beside what the paper found (Han et al., arXiv 2509.24319), quantity by
// quantity: on which side of a boundary the paper's number lies, the number here, and whether its
// interval lies there too. Numbers of answers that broke the guard say nothing, and are not held
// against anything.
#ifndef VALUESCOPE_KINDS_STUDY_PAPER_H_
#define VALUESCOPE_KINDS_STUDY_PAPER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/repeated_field.h"
#include "kinds/study_answers.h"
#include "kinds/study_vectors.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/studies.pb.h"

namespace valuescope::kinds {

// Of a value whose outcomes are told. `questionnaires` by outcome; `vocabulary` is V of EAD.
absl::Status AddPaperQuantities(
    const StudyGathering& gathering, const ScoredAnswers& answers,
    const std::map<std::string, v1::QuestionnaireResult>& questionnaires, int64_t vocabulary,
    const v1::StudiedValue& value,
    google::protobuf::RepeatedPtrField<v1::PaperQuantity>& quantities);

// Of all values together.
void AddPaperQuantitiesOverValues(v1::ValueStudyResult& result);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_PAPER_H_
