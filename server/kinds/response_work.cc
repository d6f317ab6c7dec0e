#include "kinds/response_work.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/saved_model.h"
#include "services/idempotency.h"
#include "services/replica_record.h"
#include "services/stored_vectors.h"
#include "studies/json_fields.h"
#include "studies/named_content.h"
#include "studies/stored_record.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::kinds {
namespace {

// A worker reads it for every shard. The rest of it is small, so what is too much are tensors.
constexpr int64_t kMostSpecBytes = int64_t{8} << 20;
// What two cores sustain in a forward pass, for a model that has run nothing yet: enough to tell
// seconds from hours.
constexpr double kAssumedFlops = 100e9;

// How long a prompt's token takes alone on this server.
absl::Duration TimeOfToken(const engine::ServedModel& model) {
  if (const auto measured = services::MeasuredTimeOfToken(model)) return *measured;
  const model::Architecture& a = model.architecture;
  const double weights =
      static_cast<double>(a.num_layers) *
      static_cast<double>(3 * a.hidden * a.intermediate + 4 * a.hidden * a.hidden);
  return absl::Seconds(2 * weights / kAssumedFlops);
}

absl::Status Damaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                         "the stored spec of a job is damaged");
}

absl::Status DataSetDamaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "DATA_SET_DAMAGED",
                         "the stored data set has another number of responses");
}

// Of a data set that is texts.
absl::StatusOr<std::shared_ptr<const SavedTexts>> TextsOf(const SavedWork& record,
                                                          absl::string_view bytes) {
  auto texts = std::make_shared<SavedTexts>();
  if (!texts->ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      texts->texts_size() != record.num_responses()) {
    return DataSetDamaged();
  }
  return texts;
}

// RESOURCE_EXHAUSTED unless a job may keep so many bytes of `what`; else the call holds them.
absl::Status HoldStorable(int64_t bytes, absl::string_view what, const rpc::CallContext& context) {
  if (bytes <= studies::kMaxDataSetBytes) return context.Hold(bytes);
  return NeverFits("DATA_SET_TOO_LARGE",
                   absl::StrCat(what, " take ", bytes, " bytes, allowed are at most ",
                                studies::kMaxDataSetBytes));
}

}  // namespace

int64_t ResponsesPerLargeShard(int64_t num_responses) {
  const int64_t chunks = (num_responses + kResponsesPerChunk - 1) / kResponsesPerChunk;
  const int64_t chunks_per_shard = (chunks + kMostLargeShards - 1) / kMostLargeShards;
  return std::max<int64_t>(1, chunks_per_shard) * kResponsesPerChunk;
}

jobs::Extent ResponseInputs::extent() const {
  const int64_t units_per_chunk =
      generation == nullptr ? kResponsesPerChunk : record.responses_per_shard();
  return {.units = record.num_responses(),
          .units_per_shard = record.responses_per_shard(),
          .units_per_chunk = units_per_chunk};
}

std::vector<store::Observed> ResponseInputs::Observe(const jobs::UnitRange& units) const {
  if (units.end > static_cast<int64_t>(responses.responses.size()) || units.size() == 0) return {};
  store::Observed expressing{.name = "num_expressing"}, others{.name = "num_not_expressing"};
  store::Observed tokens{.name = "response_tokens"};
  for (const studies::LabelledResponse& response : Of(units)) {
    const auto length = static_cast<int64_t>(response.response.size());
    for (store::Observed* one : {&expressing, &others, &tokens}) ++one->count;
    (response.expresses ? expressing : others).sum += 1;
    tokens.sum += length;
    tokens.sum_of_squares += length * length;
  }
  return {expressing, others, tokens};
}

std::string ResponseInputs::needs() const {
  if (record.model().empty()) return "";
  const std::string model = services::NeedOfModel(*held);
  const SavedModel& judge = record.generation().judge_model();
  if (judge.id().empty() || judge.id() == record.model()) return model;
  return absl::StrCat(model, std::string(1, services::kNeedsSeparator),
                      services::NeedOfModel(judge.id(), judge.digest(), judge.provenance()));
}

absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ResponseInputs::Model() const {
  if (held != nullptr) return held;
  return ModelOfRecord(record, *models);
}

std::string ResponseInputs::DataSet() const {
  if (texts != nullptr) return services::DeterministicBytes(*texts);
  if (generation != nullptr) return services::DeterministicBytes(generation->queries);
  return studies::EncodeResponseSet(responses);
}

absl::StatusOr<jobs::SavedWork> ResponseInputs::Save(store::BlobStore& blobs) const {
  VS_ASSIGN_OR_RETURN(const store::StoredBlob data_set, store::WriteBlob(blobs, DataSet()));
  SavedWork saved = record;
  saved.set_data_set(data_set.digest);
  return jobs::SavedWork{.spec = services::DeterministicBytes(saved), .blobs = {data_set.digest}};
}

absl::StatusOr<SavedWork> ParseSavedWork(absl::string_view spec) {
  SavedWork record;
  if (!record.ParseFromArray(spec.data(), static_cast<int>(spec.size()))) return Damaged();
  return record;
}

absl::Status CheckRecord(const SavedWork& record, SavedWork::KindCase kind) {
  if (record.kind_case() != kind || record.num_responses() < 1 ||
      record.responses_per_shard() < 1) {
    return Damaged();
  }
  if (record.format_version() >= kFirstSavedWork && record.format_version() <= kLatestSavedWork) {
    return absl::OkStatus();
  }
  return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_VERSION",
                         "the job was created by another version of the server");
}

absl::StatusOr<std::shared_ptr<const engine::ServedModel>> ModelOfRecord(
    const SavedWork& record, const engine::ModelRegistry& models) {
  SavedModel then;
  then.set_id(record.model());
  then.set_digest(record.model_digest());
  *then.mutable_provenance() = record.provenance();
  return ModelAsThen(models, then, record.format_version() >= kSavedWorkThatWaits);
}

absl::StatusOr<ResponseInputs> ResponseInputs::Open(const Sources& sources,
                                                    absl::string_view tenant,
                                                    const SavedWork& record,
                                                    SavedWork::KindCase kind) {
  VS_RETURN_IF_ERROR(CheckRecord(record, kind));
  ResponseInputs inputs{.tenant = std::string(tenant),
                        .models = sources.models,
                        .held = nullptr,
                        .responses = {},
                        .generation = nullptr,
                        .texts = nullptr,
                        .record = record};
  std::shared_ptr<const engine::ServedModel> model;  // null where the work needs none
  if (!record.model().empty()) {
    VS_ASSIGN_OR_RETURN(model, inputs.Model());
  }
  VS_ASSIGN_OR_RETURN(const std::string bytes, store::ReadBlob(*sources.blobs, record.data_set(),
                                                               studies::kMaxDataSetBytes));
  if (record.has_generation()) {
    if (model == nullptr) return Damaged();
    VS_ASSIGN_OR_RETURN(inputs.generation,
                        OpenGeneration(record, bytes, *model, inputs.tenant, sources));
    return inputs;
  }
  if (record.as_texts()) {
    VS_ASSIGN_OR_RETURN(inputs.texts, TextsOf(record, bytes));
    return inputs;
  }
  VS_ASSIGN_OR_RETURN(inputs.responses, studies::DecodeResponseSet(bytes));
  if (static_cast<int64_t>(inputs.responses.responses.size()) == record.num_responses()) {
    return inputs;
  }
  return DataSetDamaged();
}

SavedWork RecordOf(const engine::ServedModel& model, const std::string& display_name,
                   const services::ResolveOptions& options) {
  SavedWork record;
  record.set_format_version(kSavedWorkOfValues);
  record.set_model(model.id);
  record.set_model_digest(model.weights_digest);
  record.set_display_name(display_name.empty() ? options.display_name : display_name);
  return record;
}

absl::Status CheckRecordSize(const SavedWork& record) {
  const auto bytes = static_cast<int64_t>(record.ByteSizeLong());
  if (bytes <= kMostSpecBytes) return absl::OkStatus();
  return NeverFits("SPEC_TOO_LARGE", absl::StrCat("what a job keeps beside its data set takes ",
                                                  bytes, " bytes, allowed are ", kMostSpecBytes,
                                                  "; store tensors as vectors and name them"));
}

absl::Status CheckStorable(const ResponseInputs& inputs, const rpc::CallContext& context) {
  VS_RETURN_IF_ERROR(CheckRecordSize(inputs.record));
  if (inputs.texts != nullptr) {
    return HoldStorable(static_cast<int64_t>(inputs.texts->ByteSizeLong()), "the texts", context);
  }
  if (inputs.generation != nullptr) {
    return HoldStorable(static_cast<int64_t>(inputs.generation->queries.ByteSizeLong()),
                        "the queries and their prompts", context);
  }
  VS_RETURN_IF_ERROR(studies::CheckEncodedSize(inputs.responses));
  return context.Hold(studies::EncodedSize(inputs.responses));
}

services::WorkEstimate EstimateOf(const engine::ServedModel& model, int64_t tokens,
                                  int64_t forwards, int64_t bytes_left) {
  return {.tokens = tokens,
          .forwards = forwards,
          .bytes = bytes_left,
          .time = TimeOfToken(model) * static_cast<double>(tokens)};
}

services::WorkEstimate EstimateOf(const engine::ServedModel& model,
                                  const studies::ResponseSet& responses, int64_t bytes_left) {
  return EstimateOf(model, responses.num_tokens, static_cast<int64_t>(responses.responses.size()),
                    bytes_left);
}

absl::StatusOr<studies::StoredVector> UsableVectorOfName(const rpc::CallContext& context,
                                                         absl::string_view field,
                                                         const std::string& name, model::Site site,
                                                         const engine::ServedModel& model,
                                                         const Sources& sources,
                                                         services::UsedResources& used) {
  VS_ASSIGN_OR_RETURN(
      studies::StoredVector vector,
      services::HeldVectorOfName(context, field, name, {}, *sources.store, *sources.blobs, used));
  VS_RETURN_IF_ERROR(studies::CheckUsable(vector, model, site, field));
  return vector;
}

absl::StatusOr<engine::KeptCaptures> KeptFor(engine::Engine& engine, int64_t bytes, bool can_wait) {
  absl::StatusOr<engine::KeptCaptures> kept = engine.KeepCaptures(bytes);
  if (can_wait && DetailsOf(kept.status()).retry_after) return engine::KeptCaptures();
  return kept;
}

jobs::ArtifactDraft ArtifactOf(store::StoredBlob blob, absl::string_view role,
                               absl::string_view file_name, absl::string_view media_type,
                               const v1::Provenance& provenance) {
  jobs::ArtifactDraft draft;
  draft.role = std::string(role);
  draft.display_name = std::string(file_name);
  draft.media_type = std::string(media_type);
  draft.metadata = services::DeterministicBytes(provenance);
  draft.format_version = studies::kRecordVersion;
  draft.blob = std::move(blob);
  return draft;
}

absl::StatusOr<jobs::ArtifactDraft> MakeArtifact(store::BlobStore& blobs, absl::string_view role,
                                                 absl::string_view file_name,
                                                 absl::string_view media_type,
                                                 absl::string_view bytes,
                                                 const v1::Provenance& provenance) {
  VS_ASSIGN_OR_RETURN(store::StoredBlob blob, store::WriteBlob(blobs, bytes));
  return ArtifactOf(std::move(blob), role, file_name, media_type, provenance);
}

nlohmann::json SummaryOf(absl::string_view method, const v1::Provenance& provenance,
                         int64_t num_tokens) {
  return {{"format_version", kSummaryVersion},
          {"method", std::string(method)},
          {"num_expressing", provenance.num_expressing()},
          {"num_non_expressing", provenance.num_non_expressing()},
          {"num_dropped", provenance.num_dropped()},
          {"num_tokens", num_tokens}};
}

absl::StatusOr<jobs::ArtifactDraft> MakeSummary(store::BlobStore& blobs, nlohmann::json summary,
                                                const v1::Provenance& provenance) {
  summary["provenance"] = nlohmann::json::parse(studies::NamedContent(provenance));
  return MakeArtifact(blobs, "summary", "summary.json", "application/json",
                      studies::DumpJson(summary, /*indent=*/1), provenance);
}

}  // namespace valuescope::kinds
