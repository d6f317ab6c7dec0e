// The training responses of a study in one data set, so that those of one query under the empty
// system message, which all values share, run once for all vectors. Each line has the labels of the
// values that are studied under its condition, and no other.
#ifndef VALUESCOPE_KINDS_STUDY_TRAINING_H_
#define VALUESCOPE_KINDS_STUDY_TRAINING_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kinds/study_gathering.h"
#include "kinds/study_parts.h"

namespace valuescope::kinds {

// From "judge/VALUE/CONDITION" of these values, of which there is one at least: stored as the
// artifact "responses" of the study's job, and goes with it. The same bytes each time.
absl::Status StoreTraining(const StudyGathering& gathering, const std::vector<std::string>& values);

// The part that makes the vectors of all of these values, under both conditions, of that data set.
absl::StatusOr<StudyPart> ExtractionPart(const v1::ValueStudySpec& spec, const PartResults& parts,
                                         const std::vector<std::string>& values);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_TRAINING_H_
