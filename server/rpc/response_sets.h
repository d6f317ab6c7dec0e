// Labelled responses of a request, inline or as an uploaded data set, as the studies take them:
// tokenised, trimmed, labelled.
#ifndef VALUESCOPE_RPC_RESPONSE_SETS_H_
#define VALUESCOPE_RPC_RESPONSE_SETS_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "rpc/call_context.h"
#include "rpc/request_codec.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/labelled_responses.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::rpc {

struct ResponseSource {
  const google::protobuf::RepeatedPtrField<v1::LabelledResponse>& responses;
  const std::string& artifact;  // "artifacts/ID", or empty
  bool include_end_of_turn = false;
};

// Exactly one of responses and artifact must be given. Both labels must be there. INVALID_ARGUMENT
// names "responses[i]..." or "artifact" with the number of the line. An artifact used is added to
// `used`. Tokenising many takes long: the call's reason to stop ends it.
absl::StatusOr<studies::ResponseSet> ResponseSetOf(const ResponseSource& source,
                                                   const CallContext& context,
                                                   const engine::ServedModel& model,
                                                   store::Store& store, store::BlobStore& blobs,
                                                   UsedResources& used);

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_RESPONSE_SETS_H_
