#include "services/response_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/response_sets.h"

namespace valuescope::services {

ResponseReader::ResponseReader(
    const google::protobuf::RepeatedPtrField<v1::LabelledResponse>& responses,
    const rpc::CallContext& context, const engine::ServedModel& model)
    : responses_(&responses),
      context_(&context),
      model_(&model),
      options_{.add_special_tokens = true, .now = absl::Now()},
      count_(responses.size()) {}

absl::StatusOr<ResponseReader> ResponseReader::Open(
    const google::protobuf::RepeatedPtrField<v1::LabelledResponse>& responses,
    const std::string& artifact, int64_t most, const rpc::CallContext& context,
    const engine::ServedModel& model, store::Store& store, store::BlobStore& blobs) {
  if (responses.empty() == artifact.empty()) {
    return InvalidField("responses", "must be given inline or as `artifact`, one of the two");
  }
  ResponseReader reader(responses, context, model);
  if (!artifact.empty()) {
    UsedResources used;
    VS_ASSIGN_OR_RETURN(ReadPiece read,
                        OpenDataSet("artifact", artifact, context.tenant, store, blobs, used));
    VS_ASSIGN_OR_RETURN(reader.count_, CountDataSetLines(read, most));
    reader.lines_.emplace("artifact", std::move(read), LineNeeds::kResponse);
  }
  if (reader.count_ <= most) return reader;
  return NeverFits("TOO_MANY_RESPONSES",
                   absl::StrCat("`", artifact.empty() ? "responses" : "artifact",
                                "` has more responses than one call takes, which is ", most,
                                "; split the data set"));
}

absl::StatusOr<std::optional<studies::LabelledResponse>> ResponseReader::Next() {
  VS_RETURN_IF_ERROR(context_->Why());
  if (lines_) return NextLine();
  if (next_ == responses_->size()) return std::nullopt;
  const int index = next_++;
  VS_ASSIGN_OR_RETURN(TokenisedResponse tokenised,
                      TokeniseResponse(absl::StrCat("responses[", index, "]"), (*responses_)[index],
                                       *model_, options_));
  return std::move(tokenised.response);
}

absl::StatusOr<std::optional<studies::LabelledResponse>> ResponseReader::NextLine() {
  VS_ASSIGN_OR_RETURN(const std::optional<DataSetLine> line, lines_->Next());
  if (!line) return std::nullopt;
  auto tokenised = TokeniseResponse("response", line->response, *model_, options_);
  if (tokenised.ok()) return std::move(tokenised->response);
  if (!absl::IsInvalidArgument(tokenised.status())) return tokenised.status();
  return InvalidField("artifact",
                      absl::StrCat("line ", line->number, ": ", tokenised.status().message()));
}

}  // namespace valuescope::services
