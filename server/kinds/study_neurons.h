// What a study finds of neurons beside their geometry: what they contribute, and what they cause.
#ifndef VALUESCOPE_KINDS_STUDY_NEURONS_H_
#define VALUESCOPE_KINDS_STUDY_NEURONS_H_

#include "absl/status/status.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_gathering.h"

namespace valuescope::kinds {

// From "attribute/...".
absl::Status GatherNeurons(const StudyGathering& gathering, SavedStudyState& state);

// From "remove/...".
absl::Status GatherRemovals(const StudyGathering& gathering, SavedStudyState& state);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_NEURONS_H_
