#include "kinds/many_vectors_outcome.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/response_work.h"
#include "services/replays.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/study_codec.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/provenance.h"
#include "studies/resource_naming.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;

// Beside the vectors, usage and digests.
constexpr int64_t kMostVectorsReply = services::kMostReplyBytes - (64 << 10);
constexpr int64_t kMostSummary = int64_t{256} << 20;

v1::ValueVectorResult ToldOf(const SavedValueVector& vector) {
  v1::ValueVectorResult told;
  told.set_value(vector.of().value());
  *told.mutable_conditions() = vector.of().conditions();
  told.set_num_expressing(vector.provenance().num_expressing());
  told.set_num_non_expressing(vector.provenance().num_non_expressing());
  told.set_num_dropped(vector.provenance().num_dropped());
  told.set_num_unlabelled(vector.num_unlabelled());
  told.set_absence(vector.absence());
  if (!vector.lack().empty()) told.add_warnings(vector.lack());
  return told;
}

// `vector` has its rows where the answer may hold data.
void TellVector(const store::Resource& resource, const studies::StoredVector& vector,
                v1::ValueVectorResult& told) {
  *told.mutable_vector() = services::VectorToProto(
      resource, vector,
      {.with_data = !vector.rows.empty(), .with_statistics = false, .layers = {}});
  *told.mutable_statistics() = vector.record.statistics();
}

// Whether the rows of so many vectors like this one fit one answer.
bool RowsFit(size_t num_vectors, const studies::StoredVector& vector) {
  return static_cast<int64_t>(num_vectors) *
             services::DataBytes(vector, static_cast<size_t>(vector.num_rows())) <=
         services::kMaxMessageData;
}

void FitReply(v1::ExtractVectorsResponse& response) {
  if (static_cast<int64_t>(response.ByteSizeLong()) <= kMostVectorsReply) return;
  for (v1::ValueVectorResult& told : *response.mutable_vectors()) {
    if (told.has_vector()) told.mutable_vector()->clear_data();
  }
  if (static_cast<int64_t>(response.ByteSizeLong()) <= kMostVectorsReply) return;
  for (v1::ValueVectorResult& told : *response.mutable_vectors()) told.clear_statistics();
  response.add_warnings(
      "the statistics of all vectors do not fit one answer: GetVector gives them of each");
}

absl::Status SummaryDamaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                         "the stored summary of an extraction is damaged");
}

// What a summary has under `field`, a list.
absl::StatusOr<json> ListIn(const json& summary, const char* field) {
  if (!summary.is_object() || !summary.contains(field)) return SummaryDamaged();
  json list = summary[field];
  if (!list.is_array()) return SummaryDamaged();
  return list;
}

// An entry of the summary, of `num_vectors`, with its vector, if it has one, from the store.
absl::StatusOr<v1::ValueVectorResult> ToldIn(json entry, const std::string& tenant,
                                             size_t num_vectors, store::Store& store,
                                             store::BlobStore& blobs) {
  if (!entry.is_object()) return SummaryDamaged();
  const json name = entry.contains("vector") ? entry["vector"] : json();
  entry.erase("vector");
  entry.erase("layers");  // the vector has them
  v1::ValueVectorResult told;
  if (!google::protobuf::util::JsonStringToMessage(entry.dump(), &told).ok()) {
    return SummaryDamaged();
  }
  if (!name.is_string()) return told;
  VS_ASSIGN_OR_RETURN(const std::string id,
                      services::IdOfName("vector", "vectors", name.get<std::string>()));
  VS_ASSIGN_OR_RETURN(const store::Resource resource,
                      store.GetResource(tenant, store::ResourceKind::kVector, id));
  VS_ASSIGN_OR_RETURN(studies::StoredVector vector, studies::DescribeVector(resource));
  if (RowsFit(num_vectors, vector)) {
    VS_ASSIGN_OR_RETURN(vector, studies::ReadVector(blobs, resource));
  }
  TellVector(resource, vector, told);
  return told;
}

}  // namespace

ManyVectorsOutcome::ManyVectorsOutcome(v1::ExtractionMethod method, const SavedWork& record,
                                       int64_t num_tokens)
    : method_(method), provenance_(record.provenance()), num_tokens_(num_tokens) {
  int absent = 0;
  for (const SavedValueVector& vector : record.extract_vectors().vectors()) {
    vectors_.push_back({.told = ToldOf(vector), .resource = std::nullopt, .vector = {}});
    absent += !vector.absence().empty();
  }
  if (absent == 0) return;
  warnings_.push_back(absl::StrCat(absent, " of ", vectors_.size(),
                                   " vectors are not made: see `absence` and warnings of each"));
}

absl::Status ManyVectorsOutcome::Add(studies::StoredVector vector,
                                     std::vector<std::string> warnings, store::BlobStore& blobs) {
  const auto next = std::find_if(vectors_.begin(), vectors_.end(), [](const OfVector& one) {
    return one.told.absence().empty() && !one.resource;
  });
  VS_CHECK(next != vectors_.end());
  VS_ASSIGN_OR_RETURN(next->resource, studies::MakeVectorResource(blobs, vector));
  ++num_made_;
  if (!RowsFit(vectors_.size(), vector)) std::vector<float>().swap(vector.rows);
  next->vector = std::move(vector);
  for (std::string& warning : warnings) next->told.add_warnings(std::move(warning));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<store::Resource>> ManyVectorsOutcome::Resources(
    store::BlobStore&) const {
  std::vector<store::Resource> resources;
  for (const OfVector& one : vectors_) {
    if (one.resource) resources.push_back(*one.resource);
  }
  return resources;
}

absl::StatusOr<std::vector<store::Resource>> ManyVectorsOutcome::CallResources(
    store::BlobStore& blobs) const {
  VS_ASSIGN_OR_RETURN(jobs::ArtifactDraft summary, SummaryDraft(blobs));
  summary.display_name = "vectors.json";
  std::string id = absl::StrCat("vectors.", studies::IdOfDigest(summary.blob.digest));
  std::vector<store::Resource> resources = {jobs::ResourceOf(std::move(summary), std::move(id))};
  VS_ASSIGN_OR_RETURN(std::vector<store::Resource> vectors, Resources(blobs));
  std::move(vectors.begin(), vectors.end(), std::back_inserter(resources));
  return resources;
}

absl::StatusOr<std::vector<jobs::ArtifactDraft>> ManyVectorsOutcome::Artifacts(
    store::BlobStore& blobs) const {
  std::vector<jobs::ArtifactDraft> artifacts;
  VS_ASSIGN_OR_RETURN(artifacts.emplace_back(), SummaryDraft(blobs));
  return artifacts;
}

std::string ManyVectorsOutcome::Summary(const std::vector<store::Resource>& resources) const {
  json summary = Described(/*with_layers=*/false);
  summary["vectors"] = json::array();
  for (const store::Resource& resource : resources) {
    summary["vectors"].push_back(store::ResourceName(resource.kind, resource.id));
  }
  return studies::DumpJson(summary);
}

void ManyVectorsOutcome::Tell(const std::vector<store::Resource>& stored,
                              v1::ExtractVectorsResponse& response) const {
  VS_CHECK(stored.size() == num_made_ + 1);
  auto next = stored.begin() + 1;  // behind the summary
  for (const OfVector& one : vectors_) {
    v1::ValueVectorResult& told = *response.add_vectors();
    told = one.told;
    if (one.resource) TellVector(*next++, one.vector, told);
  }
  for (const std::string& warning : warnings_) response.add_warnings(warning);
  FitReply(response);
}

json ManyVectorsOutcome::Described(bool with_layers) const {
  json summary = {{"format_version", kSummaryVersion},
                  {"method", SummaryNameOf(method_)},
                  {"num_dropped", provenance_.num_dropped()},
                  {"num_tokens", num_tokens_},
                  {"values", json::array()},
                  {"warnings", warnings_}};
  for (const OfVector& one : vectors_) {
    json entry = studies::MessageToJson(one.told);
    entry["value"] = one.told.value();
    entry["conditions"] =
        std::vector<std::string>(one.told.conditions().begin(), one.told.conditions().end());
    if (one.resource) {
      entry["vector"] = store::ResourceName(one.resource->kind, one.resource->id);
    }
    if (one.resource && with_layers) {
      entry["layers"] = studies::ListToJson(one.vector.record.statistics());
    }
    summary["values"].push_back(std::move(entry));
  }
  return summary;
}

absl::StatusOr<jobs::ArtifactDraft> ManyVectorsOutcome::SummaryDraft(
    store::BlobStore& blobs) const {
  return MakeSummary(blobs, Described(/*with_layers=*/true), provenance_);
}

absl::Status ReplayManyVectors(const store::Resource& summary, store::Store& store,
                               store::BlobStore& blobs, v1::ExtractVectorsResponse& response) {
  VS_ASSIGN_OR_RETURN(const v1::Provenance provenance, studies::ProvenanceOfArtifact(summary));
  VS_ASSIGN_OR_RETURN(const std::string bytes,
                      store::ReadBlob(blobs, summary.blob_digest, kMostSummary));
  const json parsed = json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  VS_ASSIGN_OR_RETURN(const json values, ListIn(parsed, "values"));
  VS_ASSIGN_OR_RETURN(const json warnings, ListIn(parsed, "warnings"));
  for (const json& entry : values) {
    VS_ASSIGN_OR_RETURN(*response.add_vectors(),
                        ToldIn(entry, summary.tenant, values.size(), store, blobs));
  }
  for (const json& warning : warnings) {
    if (warning.is_string()) response.add_warnings(warning.get<std::string>());
  }
  response.set_num_dropped(provenance.num_dropped());
  services::AddDigests(provenance, response.mutable_digests());
  FitReply(response);
  return absl::OkStatus();
}

}  // namespace valuescope::kinds
