// A request to classify neurons, resolved: its vectors read, its numbers looked at.
#ifndef VALUESCOPE_SERVICES_CLASSIFICATION_REQUEST_H_
#define VALUESCOPE_SERVICES_CLASSIFICATION_REQUEST_H_

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/classify_neurons.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::services {

struct NamedClassification {
  studies::ClassificationPlan plan;
  studies::StoredVector first, second;  // as studies::ClassifyNeurons takes them
};

// What studies::ClassifyNeurons takes; the call holds memory for what comes of it, and the vectors
// are added to `used`. INVALID_ARGUMENT naming the field; the errors of HeldVectorOfName and
// studies::CheckUsable.
absl::StatusOr<NamedClassification> ClassificationOf(const rpc::CallContext& context,
                                                     const v1::ClassifyNeuronsRequest& request,
                                                     const engine::ServedModel& model,
                                                     store::Store& store, store::BlobStore& blobs,
                                                     UsedResources& used);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_CLASSIFICATION_REQUEST_H_
