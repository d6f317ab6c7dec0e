// What a stage of a study gathers its findings from, and with what.
#ifndef VALUESCOPE_KINDS_STUDY_GATHERING_H_
#define VALUESCOPE_KINDS_STUDY_GATHERING_H_

#include "engine/served_model.h"
#include "kinds/study_results.h"
#include "kinds/study_tools.h"
#include "rpc/call_context.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

// What it refers to outlives it.
struct StudyGathering {
  const v1::ValueStudySpec& spec;
  const engine::ServedModel& model;
  const rpc::CallContext& context;
  const StudyTools& tools;
  const PartResults& parts;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_GATHERING_H_
