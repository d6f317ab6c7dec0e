#include "services/response_sets.h"

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/data_set_lines.h"
#include "services/given_responses.h"
#include "services/prompt_codec.h"
#include "services/value_labels.h"
#include "studies/labelled_responses.h"
#include "studies/provenance.h"
#include "studies/response_selection.h"

namespace valuescope::services {
namespace {

// Responses as they are tokenised, each checked at once: what cannot run is not kept until all are
// there.
class Tokeniser {
 public:
  // `field` holds the responses.
  Tokeniser(const char* field, const rpc::CallContext& context, const engine::ServedModel& model,
            const ResponseSource& source)
      : field_(field),
        context_(context),
        model_(model),
        labels_required_(source.labels_required && source.labels == nullptr),
        labels_(source.labels),
        options_{.add_special_tokens = true, .now = absl::Now()} {}

  // Before any is added, of the set and of the list that becomes it, which grows by doubling. At
  // once: of many calls that take a little at a time from what is left, none gets far.
  absl::Status HoldFor(int64_t count) {
    constexpr int64_t kOfAResponse = 4 * sizeof(studies::LabelledResponse);
    return context_.Hold(kOfAResponse * count);
  }

  // Errors name `place`.
  absl::Status Add(const std::string& place, const v1::LabelledResponse& response) {
    if (labels_required_ && !response.has_expresses())
      return InvalidField(absl::StrCat(place, ".expresses"), "must be set: true or false");
    VS_ASSIGN_OR_RETURN(TokenisedResponse tokenised,
                        TokeniseResponse(place, response, model_, options_));
    if (labels_ != nullptr) {
      VS_ASSIGN_OR_RETURN(tokenised.response.labels, ReadValueLabels(place, response, *labels_));
    }
    VS_RETURN_IF_ERROR(context_.Hold(MemoryOf(tokenised.response)));
    rendered_chat_ |= tokenised.rendered_chat;
    if (!response.has_expresses()) ++num_unlabelled_;
    responses_.push_back(std::move(tokenised.response));
    return absl::OkStatus();
  }

  absl::StatusOr<studies::ResponseSet> Take(bool include_end_of_turn) {
    if (labels_ == nullptr && num_unlabelled_ > 0 &&
        num_unlabelled_ < static_cast<int64_t>(responses_.size())) {
      return InvalidField(field_, "must have `expresses` of all responses or of none");
    }
    studies::ResponseSet set = studies::Trim(
        std::move(responses_),
        {.end_of_turn = model_.text->eos_ids(), .include_end_of_turn = include_end_of_turn});
    set.rendered_chat = rendered_chat_;
    if (labels_required_) VS_RETURN_IF_ERROR(studies::CheckBothLabels(field_, set));
    if (labels_ != nullptr || set.num_expressing > 0) return set;
    return InvalidField(field_, "must have an expressing response that is not empty",
                        "EMPTY_LABEL");
  }

 private:
  // Of a response's tokens and query.
  static int64_t MemoryOf(const studies::LabelledResponse& response) {
    const size_t tokens = response.prompt.size() + response.response.size();
    return static_cast<int64_t>(response.query_id.size() + tokens * sizeof(int32_t));
  }

  const char* const field_;
  const rpc::CallContext& context_;
  const engine::ServedModel& model_;
  const bool labels_required_;
  const AskedLabels* const labels_;
  const PromptOptions options_;
  std::vector<studies::LabelledResponse> responses_;
  bool rendered_chat_ = false;
  int64_t num_unlabelled_ = 0;
};

}  // namespace

absl::StatusOr<TokenisedResponse> TokeniseResponse(const std::string& place,
                                                   const v1::LabelledResponse& response,
                                                   const engine::ServedModel& model,
                                                   const PromptOptions& options) {
  VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt, PromptFromProto(absl::StrCat(place, ".prompt"),
                                                              response.prompt(), model, options));
  TokenisedResponse tokenised{
      .response = {.prompt = std::move(prompt.ids),
                   .response = {},
                   .expresses = response.expresses() || !response.has_expresses(),
                   .query_id = response.query_id()},
      .rendered_chat = prompt.from_chat};
  VS_ASSIGN_OR_RETURN(
      tokenised.response.response,
      ResponseFromProto(absl::StrCat(place, ".response"), response.response(), model));
  const absl::Status checked =
      studies::CheckTokens(std::span(&tokenised.response, 1), model.architecture);
  if (!checked.ok()) return WithFieldRenamed(checked, "[0]", place);
  return tokenised;
}

absl::StatusOr<store::Resource> DataSetOfName(absl::string_view field, const std::string& name,
                                              const std::string& tenant, store::Store& store) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName(field, "artifacts", name));
  VS_ASSIGN_OR_RETURN(store::Resource artifact,
                      store.GetResource(tenant, store::ResourceKind::kArtifact, id));
  if (artifact.media_type != kDataSetMediaType) {
    return InvalidField(field, absl::StrCat("must have the media type ", kDataSetMediaType),
                        "WRONG_MEDIA_TYPE");
  }
  return artifact;
}

absl::StatusOr<ReadPiece> OpenDataSet(absl::string_view field, const std::string& name,
                                      const std::string& tenant, store::Store& store,
                                      store::BlobStore& blobs, UsedResources& used) {
  VS_ASSIGN_OR_RETURN(const store::Resource artifact, DataSetOfName(field, name, tenant, store));
  VS_ASSIGN_OR_RETURN(const int64_t size, blobs.Size(artifact.blob_digest));
  if (size > studies::kMaxDataSetBytes) {
    return NeverFits("BLOB_TOO_LARGE",
                     absl::StrCat("`", field, "` has ", size, " bytes, allowed are at most ",
                                  studies::kMaxDataSetBytes));
  }
  used[name] = artifact.digest;
  return [&blobs, digest = artifact.blob_digest](int64_t offset, int64_t length) {
    return blobs.Read(digest, offset, length);
  };
}

absl::StatusOr<studies::ResponseSet> ResponseSetOf(const ResponseSource& source,
                                                   const rpc::CallContext& context,
                                                   const engine::ServedModel& model,
                                                   store::Store& store, store::BlobStore& blobs,
                                                   UsedResources& used) {
  VS_ASSIGN_OR_RETURN(GivenResponses given,
                      GivenResponses::Open(source, context, store, blobs, used));
  Tokeniser tokeniser(given.field(), context, model, source);
  VS_RETURN_IF_ERROR(tokeniser.HoldFor(given.count()));
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::optional<GivenResponse> one, given.Next());
    if (!one) break;
    VS_RETURN_IF_ERROR(given.AtLast(tokeniser.Add(one->place, *one->response)));
  }
  VS_ASSIGN_OR_RETURN(studies::ResponseSet set, tokeniser.Take(source.include_end_of_turn));
  if (source.labels == nullptr) used[studies::kResponsesInput] = studies::DigestOf(set);
  return set;
}

}  // namespace valuescope::services
