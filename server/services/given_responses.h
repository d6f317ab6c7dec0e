// The responses of a request one after another as they were given, inline or in a data set that is
// read piece by piece.
#ifndef VALUESCOPE_SERVICES_GIVEN_RESPONSES_H_
#define VALUESCOPE_SERVICES_GIVEN_RESPONSES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "rpc/call_context.h"
#include "services/data_set_lines.h"
#include "services/request_codec.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

inline constexpr int64_t kMostResponses = int64_t{1} << 40;  // more than a data set can hold

struct AskedLabels;

struct ResponseSource {
  const google::protobuf::RepeatedPtrField<v1::LabelledResponse>& responses;
  const std::string& artifact;  // "artifacts/ID", or empty
  bool include_end_of_turn = false;
  int64_t most = kMostResponses;            // that the caller takes, empty ones included
  absl::string_view beyond = "give fewer";  // what to do with more
  // Both labels must be there; else all responses may be without one and count as expressing.
  bool labels_required = true;
  absl::string_view too_many = "USE_A_JOB";  // why more are refused
  const AskedLabels* labels = nullptr;       // read of each; null: of one value, `expresses`
};

struct GivenResponse {
  std::string place;  // of its fields: "responses[3]", or "response" of a line
  const v1::LabelledResponse* response = nullptr;  // until the next one is asked for
};

class GivenResponses {
 public:
  // Exactly one of `responses` and `artifact` must be given; an artifact is added to `used`.
  // INVALID_ARGUMENT naming "responses" or "artifact"; errors of OpenDataSet; RESOURCE_EXHAUSTED
  // where there are more than `most`, before any is looked at. The source and the context outlive
  // this.
  static absl::StatusOr<GivenResponses> Open(const ResponseSource& source,
                                             const rpc::CallContext& context, store::Store& store,
                                             store::BlobStore& blobs, UsedResources& used);

  // How many there are, empty ones included.
  int64_t count() const { return count_; }
  // The field that they come in.
  const char* field() const { return lines_ ? "artifact" : "responses"; }

  // nullopt behind the last. Errors of DataSetLines; why the call was stopped.
  absl::StatusOr<std::optional<GivenResponse>> Next();

  // What is wrong with the last one, in a file by the number of its line.
  absl::Status AtLast(const absl::Status& status) const;

 private:
  GivenResponses(const google::protobuf::RepeatedPtrField<v1::LabelledResponse>& responses,
                 const rpc::CallContext& context)
      : responses_(&responses), context_(&context), count_(responses.size()) {}

  const google::protobuf::RepeatedPtrField<v1::LabelledResponse>* responses_;
  const rpc::CallContext* context_;
  int64_t count_ = 0;
  int next_ = 0;                       // of inline responses
  std::optional<DataSetLines> lines_;  // of an artifact
  DataSetLine line_;                   // the last one
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_GIVEN_RESPONSES_H_
