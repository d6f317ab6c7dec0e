// The responses of a data set one after another, for work that keeps none of them: inline or read
// from a file piece by piece, tokenised as they are asked for. Labels are not needed.
#ifndef VALUESCOPE_SERVICES_RESPONSE_READER_H_
#define VALUESCOPE_SERVICES_RESPONSE_READER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "rpc/call_context.h"
#include "services/given_responses.h"
#include "services/prompt_codec.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/labelled_responses.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

class ResponseReader {
 public:
  // Exactly one of `responses` and `artifact` ("artifacts/ID", or empty) must be given.
  // INVALID_ARGUMENT naming "responses" or "artifact"; RESOURCE_EXHAUSTED, reason
  // TOO_MANY_RESPONSES, where there are more than `most`, before any is looked at; errors of
  // OpenDataSet. All arguments outlive the reader.
  static absl::StatusOr<ResponseReader> Open(
      const google::protobuf::RepeatedPtrField<v1::LabelledResponse>& responses,
      const std::string& artifact, int64_t most, const rpc::CallContext& context,
      const engine::ServedModel& model, store::Store& store, store::BlobStore& blobs);

  // How many there are, empty ones included.
  int64_t count() const { return given_.count(); }

  // The next one, tokens that the model can take; its response may be empty. nullopt behind the
  // last. INVALID_ARGUMENT naming "responses[i]..." or "artifact" with the number of the line; the
  // other errors of TokeniseResponse; why the call was stopped.
  absl::StatusOr<std::optional<studies::LabelledResponse>> Next();

 private:
  ResponseReader(GivenResponses given, const engine::ServedModel& model);

  GivenResponses given_;
  const engine::ServedModel* model_;
  PromptOptions options_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_RESPONSE_READER_H_
