#include "kinds/extraction_outcome.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "kinds/response_work.h"
#include "services/data_set_lines.h"
#include "services/judges.h"
#include "services/study_codec.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"

namespace valuescope::kinds {
namespace {

std::vector<std::string> WithWarningOf(const std::optional<GeneratedSet>& generated,
                                       std::vector<std::string> warnings) {
  if (!generated || !generated->mean_answer_mass) return warnings;
  if (*generated->mean_answer_mass >= services::kLeastAnswerMass) return warnings;
  warnings.push_back(absl::StrFormat(
      "the judge answers yes or no with a probability of %.2g on average: it says something else, "
      "and its labels mean little",
      *generated->mean_answer_mass));
  return warnings;
}

}  // namespace

std::string SummaryNameOf(v1::ExtractionMethod method) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(v1::ExtractionMethod_Name(method), "EXTRACTION_METHOD_"));
}

std::string ResponsesIdOf(absl::string_view vector_id) {
  return absl::StrCat("responses.", vector_id);
}

OneVectorOutcome::OneVectorOutcome(v1::ExtractionMethod method, studies::StoredVector made,
                                   std::vector<std::string> told, int64_t num_tokens,
                                   std::optional<GeneratedSet> generated)
    : vector_(std::move(made)),
      warnings_(WithWarningOf(generated, std::move(told))),
      method_(method),
      num_tokens_(num_tokens),
      generated_(std::move(generated)) {}

absl::StatusOr<std::vector<store::Resource>> OneVectorOutcome::Resources(
    store::BlobStore& blobs) const {
  VS_ASSIGN_OR_RETURN(store::Resource resource, studies::MakeVectorResource(blobs, vector_));
  return std::vector<store::Resource>{std::move(resource)};
}

absl::StatusOr<std::vector<store::Resource>> OneVectorOutcome::CallResources(
    store::BlobStore& blobs) const {
  VS_ASSIGN_OR_RETURN(std::vector<store::Resource> resources, Resources(blobs));
  if (!generated_) return resources;
  // Vectors of one name record the same responses.
  std::string id = ResponsesIdOf(resources.front().id);
  resources.push_back(jobs::ResourceOf(ResponsesDraft(), std::move(id)));
  return resources;
}

absl::StatusOr<std::vector<jobs::ArtifactDraft>> OneVectorOutcome::Artifacts(
    store::BlobStore& blobs) const {
  std::vector<jobs::ArtifactDraft> artifacts;
  VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                      MakeSummary(blobs, Described(), vector_.record.provenance()));
  if (generated_) artifacts.push_back(ResponsesDraft());
  return artifacts;
}

std::string OneVectorOutcome::Summary(const std::vector<store::Resource>& resources) const {
  nlohmann::json summary = Described();
  // By name: an earlier job may have made the same vector, and then the vector is that job's.
  summary["vectors"] = {store::ResourceName(store::ResourceKind::kVector, resources.front().id)};
  return studies::DumpJson(summary);
}

nlohmann::json OneVectorOutcome::Described() const {
  nlohmann::json summary =
      SummaryOf(SummaryNameOf(method_), vector_.record.provenance(), num_tokens_);
  summary["layers"] = studies::ListToJson(vector_.record.statistics());
  summary["warnings"] = warnings_;
  if (generated_ && generated_->mean_answer_mass) {
    summary["mean_answer_mass"] = *generated_->mean_answer_mass;
  }
  return summary;
}

void OneVectorOutcome::Tell(const std::vector<store::Resource>& stored,
                            v1::ExtractVectorsResponse& response) const {
  const bool fits = services::DataBytes(vector_, static_cast<size_t>(vector_.num_rows())) <=
                    services::kMaxMessageData;
  *response.mutable_vector() = services::VectorToProto(
      stored.front(), vector_, {.with_data = fits, .with_statistics = false, .layers = {}});
  *response.mutable_statistics() = vector_.record.statistics();
  for (const std::string& warning : warnings_) response.add_warnings(warning);
  if (generated_) {
    response.set_responses_artifact(store::ResourceName(stored.back().kind, stored.back().id));
  }
}

jobs::ArtifactDraft OneVectorOutcome::ResponsesDraft() const {
  return ArtifactOf(generated_->json_lines, "responses", "responses.jsonl",
                    services::kDataSetMediaType, vector_.record.provenance());
}

}  // namespace valuescope::kinds
