// The first half of a study's findings: vectors, what they share, neurons by geometry, and the
// directions that are steered, brought to one norm in each layer.
#ifndef VALUESCOPE_KINDS_STUDY_VECTORS_H_
#define VALUESCOPE_KINDS_STUDY_VECTORS_H_

#include "absl/status/status.h"
#include "engine/served_model.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_results.h"
#include "kinds/study_tools.h"
#include "rpc/call_context.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

// What is gathered, and with what. What it refers to outlives it.
struct StudyGathering {
  const v1::ValueStudySpec& spec;
  const engine::ServedModel& model;
  const rpc::CallContext& context;
  const StudyTools& tools;
  const PartResults& parts;
};

// From "extract/...": vectors, decomposition, classification, cosines over the values, mean delta,
// circumplex, the common norm, and in `selections` of each value the subjects that are steered.
absl::Status GatherVectors(const StudyGathering& gathering, SavedStudyState& state);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_VECTORS_H_
