// An AttributeNeuronsRequest, resolved: the same for the call that answers at once and for the job
// that does it in shards.
#ifndef VALUESCOPE_SERVICES_ATTRIBUTION_REQUESTS_H_
#define VALUESCOPE_SERVICES_ATTRIBUTION_REQUESTS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "services/response_sets.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/attribute_neurons_job.h"
#include "studies/labelled_responses.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::services {

struct ResolvedAttribution {
  std::shared_ptr<const engine::ServedModel> model;
  studies::StoredVector vector;
  studies::ResponseSet responses;
  studies::AttributeNeuronsSpec spec;  // data_set_blob is left to the caller
  UsedResources used;
};

// Everything that can be refused is refused here. UNIMPLEMENTED, naming the field, for methods
// other than direct contribution; RESOURCE_EXHAUSTED (reason USE_A_JOB) above `most_responses`.
absl::StatusOr<ResolvedAttribution> ResolveAttribution(const v1::AttributeNeuronsRequest& request,
                                                       const rpc::CallContext& context,
                                                       const engine::ModelRegistry& models,
                                                       store::Store& store, store::BlobStore& blobs,
                                                       int64_t most_responses = kMostResponses);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_ATTRIBUTION_REQUESTS_H_
