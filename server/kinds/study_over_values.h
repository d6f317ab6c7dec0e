// How sure what a study finds over its values is, were they a sample of more: the decomposition is
// done again without each of them (jackknife).
#ifndef VALUESCOPE_KINDS_STUDY_OVER_VALUES_H_
#define VALUESCOPE_KINDS_STUDY_OVER_VALUES_H_

#include "absl/status/status.h"
#include "kinds/study_gathering.h"
#include "valuescope/v1/studies.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::kinds {

// Adds `value_intervals` and what is said against the paper over all values. `request` is the one
// whose answer, `whole`, is told in the result.
absl::Status AddOverValues(const StudyGathering& gathering,
                           const v1::DecomposeVectorsRequest& request,
                           const v1::DecomposeVectorsResponse& whole, v1::ValueStudyResult& result);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_OVER_VALUES_H_
