// What the vectors of a study share: those of each value, decomposed, and those of all values, held
// against one another, with the mean delta and the circumplex.
#ifndef VALUESCOPE_KINDS_STUDY_DECOMPOSITION_H_
#define VALUESCOPE_KINDS_STUDY_DECOMPOSITION_H_

#include "absl/status/status.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_gathering.h"

namespace valuescope::kinds {

// Of all values that have vectors, of which there is one at least.
absl::Status DecomposeValues(const StudyGathering& gathering, SavedStudyState& state);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_DECOMPOSITION_H_
