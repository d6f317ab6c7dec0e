// What a sweep steers with, resolved: norms of vectors, and neurons one by one.
#ifndef VALUESCOPE_KINDS_SWEEP_SUBJECTS_H_
#define VALUESCOPE_KINDS_SWEEP_SUBJECTS_H_

#include "absl/status/status.h"
#include "engine/served_model.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "valuescope/v1/jobs.pb.h"

namespace valuescope::kinds {

// Sets the layers and subjects of `sweep`; what they name is added to `used`. INVALID_ARGUMENT
// naming "vectors[i]", "neuron_sets[i]...", "classes[i]..." or "layers"; the errors of
// UsableVectorOfName, services::NeuronSetOfName and services::ClassificationOf.
absl::Status ResolveSubjects(const v1::SteeringSweepSpec& spec, const engine::ServedModel& model,
                             const rpc::CallContext& context, const Sources& sources,
                             services::UsedResources& used, SavedSweep& sweep);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_SUBJECTS_H_
