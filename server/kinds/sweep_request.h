// A steering sweep as it is asked for, resolved: its declared size looked at before anything is
// read, vectors and neurons found, each evaluation resolved by its own kind of work under the
// sweep's scopes, bounds and objective held against what the evaluations measure.
#ifndef VALUESCOPE_KINDS_SWEEP_REQUEST_H_
#define VALUESCOPE_KINDS_SWEEP_REQUEST_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "jobs/work.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "kinds/sweep_point.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "services/request_codec.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

inline constexpr int64_t kMostSweepPoints = 20'000;
inline constexpr int64_t kMostMeasurements = 10'000'000;

// Points and units of each, as far as `spec` declares them, of a model with so many layers: those
// of a data set in a file count as one. INVALID_ARGUMENT naming the field of what is wrong in
// itself; RESOURCE_EXHAUSTED (SWEEP_TOO_LARGE).
absl::Status CheckSweepSize(const v1::SteeringSweepSpec& spec, int num_layers);
// The same of what was resolved.
absl::Status CheckMeasurements(int64_t points, int64_t units_per_point);

struct ResolvedSweep {
  SavedSweep record;  // evaluations without what Save gives of `drafts`
  std::vector<std::unique_ptr<jobs::Work>> drafts;  // one an evaluation
  services::UsedResources used;
  std::string needs;
  services::WorkEstimate estimate;  // of one point
};

// `spec` passed CheckSweepSize. Errors name its fields.
absl::StatusOr<ResolvedSweep> ResolveSweep(const v1::SteeringSweepSpec& spec,
                                           const engine::ServedModel& model,
                                           const rpc::CallContext& context,
                                           const services::ResolveOptions& options,
                                           const Sources& sources, const SweepKinds& kinds);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_REQUEST_H_
