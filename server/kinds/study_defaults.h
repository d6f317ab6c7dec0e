// The defaults of a value study, and what its numbers and names must be.
#ifndef VALUESCOPE_KINDS_STUDY_DEFAULTS_H_
#define VALUESCOPE_KINDS_STUDY_DEFAULTS_H_

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

// Names of the evaluations on development queries.
inline constexpr char kStudyResponses[] = "responses", kStudyChoices[] = "choices";
// The measure by which points are chosen.
inline constexpr char kExpressingShare[] = "expressing_share";

// Layers become lists. INVALID_ARGUMENT naming the field; nothing is read for it.
absl::StatusOr<v1::ValueStudySpec> WithStudyDefaults(const v1::ValueStudySpec& given,
                                                     const engine::ServedModel& model);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_DEFAULTS_H_
