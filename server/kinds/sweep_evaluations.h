// The evaluations of a sweep as they are asked for: each is a request of another kind of work,
// which that kind resolves, under one condition that steers.
#ifndef VALUESCOPE_KINDS_SWEEP_EVALUATIONS_H_
#define VALUESCOPE_KINDS_SWEEP_EVALUATIONS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/served_model.h"
#include "kinds/sources.h"
#include "kinds/sweep_grid.h"
#include "kinds/sweep_point.h"
#include "kinds/sweep_request.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

// What can be told of evaluations, guard and objective before anything is read. INVALID_ARGUMENT
// naming the field.
absl::Status CheckEvaluations(const v1::SteeringSweepSpec& spec);

// Units of all evaluations at a point; an item in a file is not counted, the file is one.
int64_t DeclaredUnits(const v1::SteeringSweepSpec& spec);

// Resolves each evaluation under the first point of each scope, the first of which is kept: sets
// evaluations and bytes of `resolved`, its drafts, needs and estimate, and adds what they name to
// `used`. Errors of the kinds, naming "evaluations[i]..." or "scopes[i]"; INVALID_ARGUMENT naming
// "guard[i].measure" or "objective.measure" that no evaluation has.
absl::Status ResolveEvaluations(const v1::SteeringSweepSpec& spec, const engine::ServedModel& model,
                                const rpc::CallContext& context,
                                const services::ResolveOptions& options, const SweepKinds& kinds,
                                const SweepGrid& grid, ResolvedSweep& resolved);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_EVALUATIONS_H_
