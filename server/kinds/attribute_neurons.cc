// The kind "attribute_neurons": direct contribution (studies/attribute_neurons.h) over labelled
// responses. A unit is a response.
//
// Shards. One has kResponsesPerChunk responses, more (a multiple of it) where there would be more
// than kMostShards: what is summed up in a shard is as large as all neurons. Partial:
// ActivationSums.
//
// Left by a job: "scores", the columns of stored_neuron_set.h; "summary", JSON with counts, sums a
// layer, the top neurons and the provenance, nothing of time or place; the neuron set.
#include "studies/attribute_neurons.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "nlohmann/json.hpp"
#include "services/replays.h"
#include "services/response_sets.h"
#include "services/stored_vectors.h"
#include "services/study_codec.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/records_of_version_1.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"
#include "studies/tensor_file.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;

constexpr char kName[] = "attribute_neurons";
constexpr int64_t kMostShards = 32;
// In a job's summary, which is the head of the "summary" artifact.
constexpr int kHeadNeurons = 10;

// A fixed function of the number of responses.
int64_t ResponsesPerShard(int64_t num_responses) {
  const int64_t chunks = (num_responses + kResponsesPerChunk - 1) / kResponsesPerChunk;
  const int64_t chunks_per_shard = (chunks + kMostShards - 1) / kMostShards;
  return std::max<int64_t>(1, chunks_per_shard) * kResponsesPerChunk;
}

// --- The outcome ---------------------------------------------------------------------------------

class AttributionOutcome : public jobs::Outcome {
 public:
  AttributionOutcome(const std::vector<studies::NeuronColumns>& columns, const SavedWork& record,
                     int64_t num_tokens)
      : top(studies::TopNeurons(columns, record.attribute_neurons().top_k())),
        columns_(studies::EncodeColumns(columns)),
        num_tokens_(num_tokens) {
    const v1::Provenance& provenance = record.provenance();
    set.set_model(NeedsOfModel(record.model()));
    set.set_model_digest(record.model_digest());
    set.set_method(studies::kDirectContributionMethod);
    set.set_display_name(record.display_name());
    set.set_top_k(static_cast<int32_t>(record.attribute_neurons().top_k()));
    *set.mutable_layers() = studies::SummariseLayers(columns, top);
    *set.mutable_provenance() = provenance;
    if (studies::IsNoisy(provenance.num_expressing(), provenance.num_non_expressing())) {
      set.add_warnings(absl::StrCat("only ", provenance.num_expressing(), " expressing and ",
                                    provenance.num_non_expressing(),
                                    " non-expressing responses: the scores are noisy"));
    }
  }

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore& blobs) const override {
    VS_ASSIGN_OR_RETURN(const store::StoredBlob blob, store::WriteBlob(blobs, columns_));
    VS_ASSIGN_OR_RETURN(store::Resource resource, studies::MakeNeuronSetResource(set, blob));
    return std::vector<store::Resource>{std::move(resource)};
  }

  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    std::vector<jobs::ArtifactDraft> artifacts;
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                        MakeArtifact(blobs, "scores", "scores.safetensors",
                                     studies::kSafetensorsMediaType, columns_, set.provenance()));
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                        MakeSummary(blobs, Described(top.size()), set.provenance()));
    return artifacts;
  }

  std::string Summary(const std::vector<store::Resource>& resources) const override {
    json summary = Described(kHeadNeurons);
    // By name: an earlier job may have made the same set, and then the set is that job's.
    summary["neuron_sets"] = {
        store::ResourceName(store::ResourceKind::kNeuronSet, resources.front().id)};
    return studies::DumpJson(summary);
  }

  const google::protobuf::RepeatedPtrField<v1::NeuronScore> top;
  v1::NeuronSet set;

 private:
  // With `count` of the top neurons, at most.
  json Described(int count) const {
    auto head = top;
    head.DeleteSubrange(std::min(count, head.size()), std::max(0, head.size() - count));
    json summary = SummaryOf(set.method(), set.provenance(), num_tokens_);
    summary["layers"] = studies::ListToJson(set.layers());
    summary["top"] = studies::ListToJson(head);
    return summary;
  }

  const std::string columns_;  // the file
  const int64_t num_tokens_;
};

// --- The work ------------------------------------------------------------------------------------

class AttributionWork : public ResponseWork<studies::ActivationSums> {
 public:
  AttributionWork(ResponseInputs inputs, studies::StoredVector vector, int64_t intermediate,
                  engine::KeptCaptures memory)
      : ResponseWork(std::move(inputs)),
        vector_(std::move(vector)),
        layers_(of().layers().begin(), of().layers().end()),
        width_(static_cast<int64_t>(layers_.size()) * intermediate),
        memory_(std::move(memory)) {}

  // What it holds to its end, bytes: the sums of a shard and of all, two labels each, a shard's as
  // stored, and the columns of the result.
  static int64_t BytesOf(int64_t layers, int64_t intermediate) {
    constexpr int64_t kSums = 3 * 2, kColumns = 3;
    return layers * intermediate * (kSums + kColumns) * static_cast<int64_t>(sizeof(double));
  }

 protected:
  absl::StatusOr<studies::ActivationSums> BeginSums(int64_t) override {
    return studies::ActivationSums(width_);
  }
  absl::StatusOr<studies::ActivationSums> ParseSums(absl::string_view bytes, int64_t,
                                                    int64_t) override {
    return studies::ActivationSums::Parse(bytes, width_);
  }
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        studies::ActivationSums& sums) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    const studies::AttributionPlan plan{
        .tenant = inputs_.tenant, .layers = layers_, .background = inputs_.background()};
    return studies::AddChunk(*model->engine, inputs_.Of(units), plan, cancellation, sums,
                             &cached_tokens_);
  }
  absl::Status AddShard(const studies::ActivationSums& shard,
                        studies::ActivationSums& whole) override {
    return whole.Merge(shard);
  }
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const studies::ActivationSums& whole, const Cancellation& cancellation) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    const std::optional<int> source =
        of().has_source_layer() ? std::optional<int>(of().source_layer()) : std::nullopt;
    VS_ASSIGN_OR_RETURN(const auto columns, studies::ScoreNeurons(*model->engine, whole, vector_,
                                                                  layers_, source, cancellation));
    return std::make_unique<AttributionOutcome>(columns, inputs_.record,
                                                inputs_.responses.num_tokens);
  }

 private:
  const SavedAttribution& of() const { return inputs_.record.attribute_neurons(); }

  const studies::StoredVector vector_;
  const std::vector<int> layers_;
  const int64_t width_;
  const engine::KeptCaptures memory_;
};

// The spec of a job that a server before SavedWork created.
absl::StatusOr<SavedWork> RecordOfVersion1(absl::string_view text) {
  SavedWork record;
  std::string provenance;
  VS_RETURN_IF_ERROR(studies::ReadJson(text, /*version=*/1, [&](const json& value) {
    record.set_format_version(kSavedWorkVersion);
    record.set_model(value.at("model").get<std::string>());
    record.set_model_digest(value.at("model_digest").get<std::string>());
    record.set_data_set(value.at("data_set_blob").get<std::string>());
    record.set_num_responses(value.at("num_responses").get<int64_t>());
    record.set_responses_per_shard(value.at("responses_per_shard").get<int64_t>());
    record.set_display_name(value.at("display_name").get<std::string>());
    provenance = value.at("provenance").get<std::string>();
    SavedAttribution& attribution = *record.mutable_attribute_neurons();
    attribution.set_vector(value.at("vector_id").get<std::string>());
    attribution.set_vector_digest(value.at("vector_digest").get<std::string>());
    for (const int layer : value.at("layers").get<std::vector<int>>()) {
      attribution.add_layers(layer);
    }
    const json& source = value.at("source_layer");
    if (!source.is_null()) attribution.set_source_layer(source.get<int>());
    attribution.set_top_k(value.at("top_k").get<int64_t>());
  }));
  VS_ASSIGN_OR_RETURN(*record.mutable_provenance(), studies::ProvenanceOfVersion1(provenance));
  return record;
}

// --- The request ---------------------------------------------------------------------------------

absl::Status CheckMethod(const v1::AttributeNeuronsRequest& request) {
  using Request = v1::AttributeNeuronsRequest;
  if (request.method_case() == Request::METHOD_NOT_SET) {
    return InvalidField("method", "must be set; this version serves direct_contribution");
  }
  if (request.method_case() != Request::kDirectContribution) {
    const auto* field = Request::descriptor()->FindFieldByNumber(request.method_case());
    return ErrorWithReason(absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
                           absl::StrCat("`", field->name(),
                                        "` is not served by this version; direct_contribution is"));
  }
  if (request.has_target())
    return InvalidField("target",
                        "has no meaning for direct_contribution, whose target is the vector");
  return absl::OkStatus();
}

// What needs neither vector nor responses.
absl::Status CheckOptions(const v1::AttributeNeuronsRequest& request,
                          const engine::ServedModel& model) {
  VS_RETURN_IF_ERROR(CheckMethod(request));
  if (model.architecture.post_norms) {
    return ErrorWithReason(absl::StatusCode::kUnimplemented, "OPTION_NOT_SERVED",
                           absl::StrCat("direct_contribution is not served for `models/", model.id,
                                        "`, which norms what the MLP writes"));
  }
  VS_RETURN_IF_ERROR(services::TopKOf(request).status());
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", request.display_name()));
  return services::CheckJudge(request);
}

absl::StatusOr<std::vector<int>> LayersOf(const v1::AttributeNeuronsRequest& request,
                                          const studies::StoredVector& vector,
                                          const engine::ServedModel& model) {
  const bool chosen = request.has_layers() &&
                      request.layers().layers_case() != v1::Layers::LAYERS_NOT_SET &&
                      !request.layers().all();
  if (!chosen && !request.has_source_layer()) {
    return std::vector<int>(vector.record.layers().begin(), vector.record.layers().end());
  }
  // All blocks of a source layer are those that can have written its row.
  const int num_layers = !chosen && vector.RowOfLayer(request.source_layer())
                             ? request.source_layer() + 1
                             : model.architecture.num_layers;
  return services::LayersFromProto(
      "layers", request.has_layers() ? &request.layers() : nullptr,
      {.site = model::Site::kMlpNeurons, .num_layers = num_layers, .all_by_default = true});
}

class AttributeNeuronsKind
    : public ResponseKind<v1::AttributeNeuronsRequest, v1::AttributeNeuronsResponse,
                          AttributionWork, AttributionOutcome> {
 public:
  explicit AttributeNeuronsKind(const Sources& sources) : ResponseKind(sources) {}

  absl::string_view Name() const override { return kName; }

  absl::StatusOr<std::unique_ptr<jobs::Work>> Open(absl::string_view tenant,
                                                   absl::string_view spec) override {
    VS_ASSIGN_OR_RETURN(const SavedWork record, absl::StartsWith(spec, "{") ? RecordOfVersion1(spec)
                                                                            : ParseSavedWork(spec));
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs, ResponseInputs::Open(sources_, tenant, record,
                                                                    SavedWork::kAttributeNeurons));
    VS_ASSIGN_OR_RETURN(const store::Resource resource,
                        sources_.store->GetResource(tenant, store::ResourceKind::kVector,
                                                    record.attribute_neurons().vector()));
    VS_ASSIGN_OR_RETURN(studies::StoredVector vector,
                        studies::ReadVector(*sources_.blobs, resource));
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    VS_ASSIGN_OR_RETURN(
        engine::KeptCaptures memory,
        model->engine->KeepCaptures(AttributionWork::BytesOf(
            record.attribute_neurons().layers_size(), model->architecture.intermediate)));
    return std::make_unique<AttributionWork>(std::move(inputs), std::move(vector),
                                             model->architecture.intermediate, std::move(memory));
  }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const v1::AttributeNeuronsRequest& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_RETURN_IF_ERROR(CheckOptions(request, *model));
    VS_ASSIGN_OR_RETURN(
        studies::StoredVector vector,
        services::HeldVectorOfName(context, "vector", request.vector(), {}, *sources_.store,
                                   *sources_.blobs, resolved.used));
    VS_RETURN_IF_ERROR(studies::CheckUsable(vector, *model, model::Site::kResidualPost, "vector"));
    VS_ASSIGN_OR_RETURN(const std::vector<int> layers, LayersOf(request, vector, *model));
    const std::optional<int> source =
        request.has_source_layer() ? std::optional<int>(request.source_layer()) : std::nullopt;
    VS_RETURN_IF_ERROR(studies::CheckRows(vector, layers, source));
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs,
                        InputsOfRequest(request, model, context, options, sources_, resolved.used));
    SavedWork& record = inputs.record;
    record.set_responses_per_shard(ResponsesPerShard(record.num_responses()));
    *record.mutable_provenance() = ProvenanceOf(
        request, *model, inputs.responses, resolved.used, model::Site::kMlpNeurons,
        {"model", "responses", "artifact", "vector", "judge", "display_name", "request_id"});
    SavedAttribution& attribution = *record.mutable_attribute_neurons();
    VS_ASSIGN_OR_RETURN(*attribution.mutable_vector(),
                        services::IdOfName("vector", "vectors", request.vector()));
    attribution.set_vector_digest(resolved.used.at(request.vector()));
    attribution.mutable_layers()->Assign(layers.begin(), layers.end());
    if (source) attribution.set_source_layer(*source);
    VS_ASSIGN_OR_RETURN(const int top_k, services::TopKOf(request));
    attribution.set_top_k(top_k);
    if (!options.at_once) VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    // Columns: score and two means, float64, of every neuron.
    resolved.estimate =
        EstimateOf(*model, inputs.responses,
                   static_cast<int64_t>(layers.size()) * model->architecture.intermediate * 3 * 8);
    resolved.needs = NeedsOfModel(model->id);
    auto memory = model->engine->KeepCaptures(AttributionWork::BytesOf(
        static_cast<int64_t>(layers.size()), model->architecture.intermediate));
    // What others hold now is gone by the time a job runs, perhaps.
    const bool can_wait = !options.at_once && DetailsOf(memory.status()).retry_after;
    if (!memory.ok() && !can_wait) return memory.status();
    resolved.work = std::make_unique<AttributionWork>(
        std::move(inputs), std::move(vector), model->architecture.intermediate,
        memory.ok() ? *std::move(memory) : engine::KeptCaptures());
    return resolved;
  }

  void Answered(const v1::AttributeNeuronsRequest&, const services::ResolvedWork& resolved,
                const AttributionWork& work, const AttributionOutcome& outcome,
                const std::vector<store::Resource>& stored,
                v1::AttributeNeuronsResponse& response) const override {
    const studies::ResponseSet& responses = work.inputs().responses;
    *response.mutable_neuron_set() =
        services::NeuronSetToProto(stored.front(), outcome.set, outcome.top);
    *response.mutable_warnings() = outcome.set.warnings();
    response.set_num_expressing(responses.num_expressing);
    response.set_num_non_expressing(responses.num_non_expressing);
    TellInputs(resolved, work, response);
  }

  absl::Status Replayed(const store::Resource& earlier,
                        v1::AttributeNeuronsResponse& response) const override {
    return services::ReplayAttributeNeurons(earlier, *sources_.blobs, &response);
  }
};

}  // namespace

std::unique_ptr<services::Kind> AttributeNeurons(const Sources& sources) {
  return std::make_unique<AttributeNeuronsKind>(sources);
}

}  // namespace valuescope::kinds
