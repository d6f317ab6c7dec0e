// The scalar of an attribution (engine/neuron_request.h) where it is measured instead of
// differentiated: asked of a run of the engine, and read from what that came to. Interventions of
// the request change it.
#ifndef VALUESCOPE_STUDIES_MEASURED_TARGET_H_
#define VALUESCOPE_STUDIES_MEASURED_TARGET_H_

#include "absl/status/statusor.h"
#include "engine/neuron_request.h"
#include "engine/request.h"

namespace valuescope::studies {

// Of a request without taps. What the engine says of the target's tokens names "taps[0].tokens".
void AskForTarget(const engine::NeuronTarget& target, engine::Request& request);

// From the completion of such a request. FAILED_PRECONDITION (reason TARGET_NOT_FINITE) where it is
// no number; INTERNAL where the engine returned another shape.
absl::StatusOr<double> TargetIn(const engine::NeuronTarget& target,
                                const engine::Completion& completion);
absl::Status TargetNotFinite();

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_MEASURED_TARGET_H_
