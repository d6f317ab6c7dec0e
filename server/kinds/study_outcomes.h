// What test queries tell, over all values: every way to answer them (study_measures.h), what of it
// is more than chance, and what the paper says of it.
#ifndef VALUESCOPE_KINDS_STUDY_OUTCOMES_H_
#define VALUESCOPE_KINDS_STUDY_OUTCOMES_H_

#include "absl/status/status.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_gathering.h"

namespace valuescope::kinds {

// From what study_measures.h reads: outcomes and answers side by side, in the study's language and
// the others; p-values adjusted over all values; and what is said against the paper.
absl::Status GatherOutcomes(const StudyGathering& gathering, SavedStudyState& state);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_OUTCOMES_H_
