#include "services/given_responses.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/response_sets.h"

namespace valuescope::services {

absl::StatusOr<GivenResponses> GivenResponses::Open(const ResponseSource& source,
                                                    const rpc::CallContext& context,
                                                    store::Store& store, store::BlobStore& blobs,
                                                    UsedResources& used) {
  if (source.responses.empty() == source.artifact.empty()) {
    return InvalidField("responses", "must be given inline or as `artifact`, one of the two");
  }
  GivenResponses given(source.responses, context);
  if (!source.artifact.empty()) {
    VS_ASSIGN_OR_RETURN(ReadPiece read, OpenDataSet("artifact", source.artifact, context.tenant,
                                                    store, blobs, used));
    VS_ASSIGN_OR_RETURN(given.count_, CountDataSetLines(read, source.most));
    given.lines_.emplace("artifact", std::move(read),
                         source.labels_required && source.labels == nullptr ? LineNeeds::kLabel
                                                                            : LineNeeds::kResponse);
  }
  if (given.count_ <= source.most) return given;
  return NeverFits(
      source.too_many,
      absl::StrCat("`", given.field(), "` has more responses than one call takes, which is ",
                   source.most, "; ", source.beyond));
}

absl::StatusOr<std::optional<GivenResponse>> GivenResponses::Next() {
  VS_RETURN_IF_ERROR(context_->Why());
  if (!lines_) {
    if (next_ == responses_->size()) return std::nullopt;
    const int index = next_++;
    return GivenResponse{.place = absl::StrCat("responses[", index, "]"),
                         .response = &(*responses_)[index]};
  }
  VS_ASSIGN_OR_RETURN(std::optional<DataSetLine> line, lines_->Next());
  if (!line) return std::nullopt;
  line_ = *std::move(line);
  return GivenResponse{.place = "response", .response = &line_.response};
}

absl::Status GivenResponses::AtLast(const absl::Status& status) const {
  if (!lines_ || !absl::IsInvalidArgument(status)) return status;
  return InvalidField("artifact", absl::StrCat("line ", line_.number, ": ", status.message()));
}

}  // namespace valuescope::services
