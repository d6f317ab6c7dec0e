// Labelled responses of a request, inline or as an uploaded data set, as the studies take them:
// tokenised, trimmed, labelled.
#ifndef VALUESCOPE_SERVICES_RESPONSE_SETS_H_
#define VALUESCOPE_SERVICES_RESPONSE_SETS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "engine/served_model.h"
#include "rpc/call_context.h"
#include "services/data_set_lines.h"
#include "services/given_responses.h"
#include "services/prompt_codec.h"
#include "services/request_codec.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/labelled_responses.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// An artifact that is a data set. Errors name `field`: no artifacts/ID, another media type
// (WRONG_MEDIA_TYPE); NOT_FOUND.
absl::StatusOr<store::Resource> DataSetOfName(absl::string_view field, const std::string& name,
                                              const std::string& tenant, store::Store& store);

// The bytes of an uploaded data set, piece by piece; the artifact is added to `used`. Errors of
// DataSetOfName; RESOURCE_EXHAUSTED (BLOB_TOO_LARGE).
absl::StatusOr<ReadPiece> OpenDataSet(absl::string_view field, const std::string& name,
                                      const std::string& tenant, store::Store& store,
                                      store::BlobStore& blobs, UsedResources& used);

// Exactly one of responses and artifact must be given. Some must be expressing, unless the source
// asks for labels of several values. INVALID_ARGUMENT names "responses[i]..." or "artifact" with
// the number of the line; RESOURCE_EXHAUSTED (reason USE_A_JOB) where there are more than `most`,
// before any is looked at. An artifact used is added to `used`, and the digest of the set, as
// studies::kResponsesInput, where one value is asked for: with several, what each is of goes by a
// digest of its own. Tokenising many takes long: the call's reason to stop ends it.
absl::StatusOr<studies::ResponseSet> ResponseSetOf(const ResponseSource& source,
                                                   const rpc::CallContext& context,
                                                   const engine::ServedModel& model,
                                                   store::Store& store, store::BlobStore& blobs,
                                                   UsedResources& used);

struct TokenisedResponse {
  studies::LabelledResponse response;  // one without a label is expressing
  bool rendered_chat = false;
};

// Tokens that the model can take. INVALID_ARGUMENT naming a field beneath `place`; the other errors
// of PromptFromProto.
absl::StatusOr<TokenisedResponse> TokeniseResponse(const std::string& place,
                                                   const v1::LabelledResponse& response,
                                                   const engine::ServedModel& model,
                                                   const PromptOptions& options);

inline constexpr size_t kMaxJudge = 1024;

// INVALID_ARGUMENT naming "judge" where it is longer than kMaxJudge bytes: it stands in every list.
template <typename Request>
absl::Status CheckJudge(const Request& request) {
  if (request.judge().size() <= kMaxJudge) return absl::OkStatus();
  return InvalidField("judge", absl::StrCat("has ", request.judge().size(),
                                            " bytes, allowed are at most ", kMaxJudge));
}

// Where the labels of a request come from. All that is known of labels of which nothing is said is
// who sent them.
template <typename Request>
std::string JudgeOf(const Request& request) {
  return request.judge().empty() ? "caller" : request.judge();
}

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_RESPONSE_SETS_H_
