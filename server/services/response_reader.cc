#include "services/response_reader.h"

#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "services/response_sets.h"

namespace valuescope::services {

ResponseReader::ResponseReader(GivenResponses given, const engine::ServedModel& model)
    : given_(std::move(given)),
      model_(&model),
      options_{.add_special_tokens = true, .now = absl::Now()} {}

absl::StatusOr<ResponseReader> ResponseReader::Open(
    const google::protobuf::RepeatedPtrField<v1::LabelledResponse>& responses,
    const std::string& artifact, int64_t most, const rpc::CallContext& context,
    const engine::ServedModel& model, store::Store& store, store::BlobStore& blobs) {
  UsedResources used;
  const ResponseSource source{.responses = responses,
                              .artifact = artifact,
                              .most = most,
                              .beyond = "split the data set",
                              .labels_required = false,
                              .too_many = "TOO_MANY_RESPONSES"};
  VS_ASSIGN_OR_RETURN(GivenResponses given,
                      GivenResponses::Open(source, context, store, blobs, used));
  return ResponseReader(std::move(given), model);
}

absl::StatusOr<std::optional<studies::LabelledResponse>> ResponseReader::Next() {
  VS_ASSIGN_OR_RETURN(const std::optional<GivenResponse> given, given_.Next());
  if (!given) return std::nullopt;
  auto tokenised = TokeniseResponse(given->place, *given->response, *model_, options_);
  if (!tokenised.ok()) return given_.AtLast(tokenised.status());
  return std::move(tokenised->response);
}

}  // namespace valuescope::services
