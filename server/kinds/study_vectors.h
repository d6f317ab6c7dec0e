// The first half of a study's findings: vectors, what they share, neurons by geometry, and the
// directions that are steered, brought to one norm in each layer.
#ifndef VALUESCOPE_KINDS_STUDY_VECTORS_H_
#define VALUESCOPE_KINDS_STUDY_VECTORS_H_

#include "absl/status/status.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_gathering.h"

namespace valuescope::kinds {

// From "extract": vectors, what they share (study_decomposition.h), classification, the common
// norm, and in `selections` of each value the subjects that are steered. TOO_FEW_RESPONSES as from
// CheckAnyLives.
absl::Status GatherVectors(const StudyGathering& gathering, SavedStudyState& state);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_VECTORS_H_
