// What a study keeps apart, since it would measure what it selected for otherwise: queries that
// choose and queries that results are reported on, words that label and words that score, and
// system messages and the words that judges look for; in the study's language and in others.
#ifndef VALUESCOPE_KINDS_STUDY_KEPT_APART_H_
#define VALUESCOPE_KINDS_STUDY_KEPT_APART_H_

#include "absl/status/status.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

// INVALID_ARGUMENT naming the field: values, languages or queries that are not as ValueStudySpec,
// ValueDefinition and StudyLanguage say.
absl::Status CheckKeptApart(const v1::ValueStudySpec& spec);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_KEPT_APART_H_
