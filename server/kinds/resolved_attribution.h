// What a request for attribution names, looked up: the method as it is saved with a job, and the
// vectors that it needs.
#ifndef VALUESCOPE_KINDS_RESOLVED_ATTRIBUTION_H_
#define VALUESCOPE_KINDS_RESOLVED_ATTRIBUTION_H_

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/response_work.h"
#include "kinds/saved_attribution.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {

struct ResolvedAttribution {
  SavedAttribution record;
  AttributionVectors vectors;  // the record's
};

// Of a request that satisfies CheckAttributionOptions. What it names is added to `used`.
// INVALID_ARGUMENT naming a field of the request; NOT_FOUND and FAILED_PRECONDITION for vectors;
// errors of CallContext::Hold.
absl::StatusOr<ResolvedAttribution> ResolveAttribution(const v1::AttributeNeuronsRequest& request,
                                                       const engine::ServedModel& model,
                                                       const rpc::CallContext& context,
                                                       const Sources& sources,
                                                       services::UsedResources& used);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_RESOLVED_ATTRIBUTION_H_
