#include "rpc/response_sets.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "rpc/data_set_lines.h"
#include "studies/attribute_neurons_job.h"

namespace valuescope::rpc {
namespace {

absl::StatusOr<studies::LabelledResponse> Tokenised(const std::string& field,
                                                    const v1::LabelledResponse& response,
                                                    const engine::ServedModel& model,
                                                    const PromptOptions& options) {
  if (!response.has_expresses())
    return InvalidField(absl::StrCat(field, ".expresses"), "must be set: true or false");
  VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt, PromptFromProto(absl::StrCat(field, ".prompt"),
                                                              response.prompt(), model, options));
  VS_ASSIGN_OR_RETURN(std::vector<int32_t> ids, ResponseFromProto(absl::StrCat(field, ".response"),
                                                                  response.response(), model));
  return studies::LabelledResponse{.prompt = std::move(prompt.ids),
                                   .response = std::move(ids),
                                   .expresses = response.expresses(),
                                   .query_id = response.query_id()};
}

absl::StatusOr<std::vector<DataSetLine>> LinesOf(const std::string& name, const std::string& tenant,
                                                 store::Store& store, store::BlobStore& blobs,
                                                 UsedResources& used) {
  VS_ASSIGN_OR_RETURN(const std::string id, IdOfName("artifact", "artifacts", name));
  VS_ASSIGN_OR_RETURN(const store::Resource artifact,
                      store.GetResource(tenant, store::ResourceKind::kArtifact, id));
  if (artifact.media_type != kDataSetMediaType) {
    return InvalidField("artifact", absl::StrCat("must have the media type ", kDataSetMediaType),
                        "WRONG_MEDIA_TYPE");
  }
  VS_ASSIGN_OR_RETURN(const std::string bytes,
                      store::ReadBlob(blobs, artifact.blob_digest, studies::kMaxDataSetBytes));
  used[name] = artifact.digest;
  return ParseDataSetLines("artifact", bytes, /*labels_required=*/true);
}

}  // namespace

absl::StatusOr<studies::ResponseSet> ResponseSetOf(const ResponseSource& source,
                                                   const CallContext& context,
                                                   const engine::ServedModel& model,
                                                   store::Store& store, store::BlobStore& blobs,
                                                   UsedResources& used) {
  if (source.responses.empty() == source.artifact.empty()) {
    return InvalidField("responses", "must be given inline or as `artifact`, one of the two");
  }
  const PromptOptions options{.add_special_tokens = true, .now = absl::Now()};
  std::vector<studies::LabelledResponse> responses;
  for (int i = 0; i < source.responses.size(); ++i) {
    VS_RETURN_IF_ERROR(context.Why());
    VS_ASSIGN_OR_RETURN(responses.emplace_back(), Tokenised(absl::StrCat("responses[", i, "]"),
                                                            source.responses[i], model, options));
  }
  if (!source.artifact.empty()) {
    VS_ASSIGN_OR_RETURN(const auto lines,
                        LinesOf(source.artifact, context.tenant, store, blobs, used));
    for (const DataSetLine& line : lines) {
      VS_RETURN_IF_ERROR(context.Why());
      auto one = Tokenised("response", line.response, model, options);
      if (!one.ok()) {
        return InvalidField("artifact",
                            absl::StrCat("line ", line.number, ": ", one.status().message()));
      }
      responses.push_back(*std::move(one));
    }
  }
  const char* field = source.artifact.empty() ? "responses" : "artifact";
  if (absl::Status status = studies::CheckTokens(responses, model.architecture); !status.ok()) {
    return InField(field, status);
  }
  studies::ResponseSet set = studies::Trim(
      std::move(responses),
      {.end_of_turn = model.text->eos_ids(), .include_end_of_turn = source.include_end_of_turn});
  VS_RETURN_IF_ERROR(studies::CheckBothLabels(field, set));
  return set;
}

}  // namespace valuescope::rpc
