// What test queries tell: every way to answer them measured by the judge that scores, by what the
// texts are like, by questionnaire and choices, and held against the baseline with what is known of
// the difference (analysis/paired_differences.h).
#ifndef VALUESCOPE_KINDS_STUDY_OUTCOMES_H_
#define VALUESCOPE_KINDS_STUDY_OUTCOMES_H_

#include <string>

#include "absl/status/status.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_vectors.h"
#include "valuescope/v1/studies.pb.h"

namespace valuescope::kinds {

// From "score/VALUE", "measure/VALUE", "ask/VALUE" and "choose/VALUE": outcomes, answers side by
// side, p-values adjusted over all values, and what is said against the paper.
absl::Status GatherOutcomes(const StudyGathering& gathering, SavedStudyState& state);

// Null where it was not measured.
const v1::StudyMeasure* MeasureOf(const v1::StudyOutcome& outcome, const std::string& name);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_OUTCOMES_H_
