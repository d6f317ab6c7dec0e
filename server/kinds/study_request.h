// A value study as it is asked for: its defaults filled in, and everything looked at that can be
// before anything runs. Each part is resolved once by its own kind with what is known already,
// which finds what is wrong with queries, messages, sampling, judges and items, and what the part
// will cost.
//
// A study measures what it selected for unless three things are kept apart, so that is refused
// here: queries that stand in two lists, words that label and score, and system messages that hold
// words that a judge looks for.
#ifndef VALUESCOPE_KINDS_STUDY_REQUEST_H_
#define VALUESCOPE_KINDS_STUDY_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/study_tools.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "services/request_codec.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

struct ResolvedStudy {
  v1::ValueStudySpec spec;  // with its defaults
  services::UsedResources used;
  std::string needs;
  services::WorkEstimate estimate;   // of all parts
  std::vector<int64_t> stage_units;  // forward passes of each stage, at least 1
};

// INVALID_ARGUMENT naming the field; other errors of the parts' kinds.
absl::StatusOr<ResolvedStudy> ResolveStudy(const v1::ValueStudySpec& given,
                                           const engine::ServedModel& model,
                                           const rpc::CallContext& context,
                                           const StudyTools& tools);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_REQUEST_H_
