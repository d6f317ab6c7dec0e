#include "kinds/study_results.h"

#include <google/protobuf/util/json_util.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "services/data_set_lines.h"
#include "store/blob_store.h"
#include "studies/provenance.h"

namespace valuescope::kinds {
namespace {

constexpr int64_t kMostSummary = int64_t{256} << 20;

absl::Status Damaged(const std::string& phase) {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "RESULT_DAMAGED",
                         absl::StrCat("what the part `", phase, "` left is damaged"));
}

}  // namespace

const std::string& PartResults::study() const {
  VS_CHECK(!parts_.empty());
  return parts_.begin()->second.parent;
}

std::string PartResults::ArtifactName(const std::string& phase, absl::string_view role) const {
  const auto part = parts_.find(phase);
  VS_CHECK(part != parts_.end());
  return absl::StrCat("artifacts/", part->second.id, ".", role);
}

absl::StatusOr<store::Resource> PartResults::Artifact(const std::string& phase,
                                                      absl::string_view role) const {
  const std::string name = ArtifactName(phase, role);
  return sources_.store->GetResource(tenant_, store::ResourceKind::kArtifact,
                                     name.substr(name.find('/') + 1));
}

absl::StatusOr<std::string> PartResults::JudgeOf(const std::string& phase) const {
  VS_ASSIGN_OR_RETURN(const store::Resource responses, Artifact(phase, "responses"));
  VS_ASSIGN_OR_RETURN(const v1::Provenance provenance, studies::ProvenanceOfArtifact(responses));
  return provenance.judge();
}

absl::Status PartResults::ReadSummary(const std::string& phase,
                                      google::protobuf::Message& message) const {
  VS_ASSIGN_OR_RETURN(const store::Resource summary, Artifact(phase, "summary"));
  VS_ASSIGN_OR_RETURN(const std::string json,
                      store::ReadBlob(*sources_.blobs, summary.blob_digest, kMostSummary));
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  if (!google::protobuf::util::JsonStringToMessage(json, &message, options).ok()) {
    return Damaged(phase);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> PartResults::Made(const std::string& phase,
                                              const char* collection) const {
  const auto part = parts_.find(phase);
  VS_CHECK(part != parts_.end());
  VS_ASSIGN_OR_RETURN(const store::Job job, sources_.store->GetJob(tenant_, part->second.id));
  const auto summary = nlohmann::json::parse(job.result, nullptr, /*allow_exceptions=*/false);
  if (!summary.is_object() || !summary.contains(collection)) return Damaged(phase);
  const nlohmann::json& names = summary[collection];
  if (!names.is_array() || names.size() != 1 || !names[0].is_string()) return Damaged(phase);
  return names[0].get<std::string>();
}

absl::Status PartResults::ReadLines(const std::string& phase, absl::string_view role,
                                    google::protobuf::Message& line,
                                    const std::function<absl::Status()>& take) const {
  VS_ASSIGN_OR_RETURN(const store::Resource artifact, Artifact(phase, role));
  services::JsonLines lines(phase, [&](int64_t offset, int64_t length) {
    return sources_.blobs->Read(artifact.blob_digest, offset, length);
  });
  while (true) {
    const auto next = lines.Next();
    if (absl::IsInvalidArgument(next.status())) return Damaged(phase);
    VS_RETURN_IF_ERROR(next.status());
    if (!next->has_value()) return absl::OkStatus();
    line.Clear();
    if (!lines.Parse(**next, {}, line).ok()) return Damaged(phase);
    VS_RETURN_IF_ERROR(take());
  }
}

}  // namespace valuescope::kinds
