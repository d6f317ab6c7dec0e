// The kind "attribute_neurons": neurons scored over labelled responses by the methods of
// studies/attribution_method.h. A unit is a response.
//
// What is summed up in a shard is as large as all neurons, so there are few shards. Partial:
// ActivationSums.
//
// Left by a job: "scores", the columns of stored_neuron_set.h; "summary", JSON with counts, sums a
// layer, the top neurons and the provenance, nothing of time or place; the neuron set.
#include "studies/attribute_neurons.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/attribution_options.h"
#include "kinds/attribution_target.h"
#include "kinds/kinds.h"
#include "kinds/resolved_attribution.h"
#include "kinds/response_work.h"
#include "kinds/saved_attribution.h"
#include "kinds/saved_model.h"
#include "nlohmann/json.hpp"
#include "services/model_needs.h"
#include "services/replays.h"
#include "services/response_sets.h"
#include "services/study_codec.h"
#include "studies/attribution_method.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/records_of_version_1.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"
#include "studies/target_attribution.h"
#include "studies/tensor_file.h"
#include "valuescope/v1/neurons.pb.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;

constexpr char kName[] = "attribute_neurons";
// In a job's summary, which is the head of the "summary" artifact.
constexpr int kHeadNeurons = 10;
// Of the effect of a block; above it gaps of responses are warned of.
constexpr double kLargeGap = .05;

// --- The outcome ---------------------------------------------------------------------------------

class AttributionOutcome : public jobs::Outcome {
 public:
  AttributionOutcome(absl::string_view method, const std::vector<studies::NeuronColumns>& columns,
                     const SavedWork& record, int64_t num_tokens)
      : top(studies::TopNeurons(columns, MostMembers(columns, record.attribute_neurons()))),
        columns_(studies::EncodeColumns(columns)),
        num_tokens_(num_tokens) {
    const v1::Provenance& provenance = record.provenance();
    set.set_model(absl::StrCat("models/", record.model()));
    set.set_model_digest(record.model_digest());
    set.set_method(std::string(method));
    set.set_display_name(record.display_name());
    set.set_top_k(static_cast<int32_t>(MostMembers(columns, record.attribute_neurons())));
    *set.mutable_layers() = studies::SummariseLayers(columns, top);
    *set.mutable_provenance() = provenance;
    AddGapWarnings();
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
  // The top_k asked for. Where candidates were named the others, which score 0, are no members.
  static int64_t MostMembers(const std::vector<studies::NeuronColumns>& columns,
                             const SavedAttribution& record) {
    if (record.causal_ablation().candidates().empty()) return record.top_k();
    int64_t scored = 0;
    for (const studies::NeuronColumns& column : columns) {
      scored += std::count_if(column.scores.begin(), column.scores.end(),
                              [](double score) { return score != 0; });
    }
    return std::min<int64_t>(record.top_k(), scored);
  }

  // Of blocks where the scores of a response's neurons miss what these do together.
  void AddGapWarnings() {
    for (const v1::NeuronSetLayer& layer : set.layers()) {
      const double whole = layer.completeness_gap() + layer.score_sum();
      if (!layer.has_mean_absolute_gap()) continue;
      if (layer.mean_absolute_gap() <= kLargeGap * std::abs(whole)) continue;
      set.add_warnings(absl::StrCat(
          "layer ", layer.layer(), ": of a response the scores miss ", layer.mean_absolute_gap(),
          " in the mean, while all neurons do ", whole, " together; use more steps"));
    }
  }

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
  AttributionWork(ResponseInputs inputs, std::unique_ptr<studies::AttributionMethod> method,
                  int64_t intermediate, engine::KeptCaptures memory)
      : ResponseWork(std::move(inputs)),
        method_(std::move(method)),
        width_(method_->WidthOfSums(intermediate)),
        memory_(std::move(memory)) {}

  // What it holds to its end, bytes: the sums of a shard and of all, two labels each, a shard's as
  // stored, and the columns of the result.
  static int64_t BytesOf(const studies::AttributionMethod& method, int64_t layers,
                         int64_t intermediate) {
    constexpr int64_t kSums = 3 * 2, kColumns = 3;
    return (kSums * method.WidthOfSums(intermediate) + kColumns * layers * intermediate) *
           static_cast<int64_t>(sizeof(double));
  }

  std::vector<store::Observed> Observe(const jobs::UnitRange& units) const override {
    return inputs_.Observe(units);
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
    if (kept_ == nullptr) {
      VS_ASSIGN_OR_RETURN(kept_, method_->Keep(*model->engine, inputs_.Of(units), cancellation));
    }
    return method_->AddChunk(*model->engine, inputs_.Of(units),
                             {.tenant = inputs_.tenant, .background = inputs_.background()},
                             cancellation, sums, cached_tokens_);
  }
  absl::Status AddShard(const studies::ActivationSums& shard,
                        studies::ActivationSums& whole) override {
    return whole.Merge(shard);
  }
  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const studies::ActivationSums& whole, const Cancellation& cancellation) override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    VS_ASSIGN_OR_RETURN(const auto columns, method_->Score(*model->engine, whole, cancellation));
    return std::make_unique<AttributionOutcome>(method_->Name(), columns, inputs_.record,
                                                inputs_.responses.num_tokens);
  }

 private:
  const std::unique_ptr<studies::AttributionMethod> method_;
  const int64_t width_;
  const engine::KeptCaptures memory_;
  std::shared_ptr<const void> kept_;  // of the method, from one chunk to the next
};

// The spec of a job that a server before SavedWork created.
absl::StatusOr<SavedWork> RecordOfVersion1(absl::string_view text) {
  SavedWork record;
  std::string provenance;
  VS_RETURN_IF_ERROR(studies::ReadJson(text, /*version=*/1, [&](const json& value) {
    record.set_format_version(kFirstSavedWork);
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

using Request = v1::AttributeNeuronsRequest;

// Of all responses (studies::TargetCost).
constexpr int64_t kMostPassesAtOnce = 100'000;

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
    const SavedAttribution& attribution = record.attribute_neurons();
    AttributionVectors vectors;
    VS_ASSIGN_OR_RETURN(vectors.vector, StoredVectorOf(tenant, attribution.vector()));
    VS_ASSIGN_OR_RETURN(vectors.reference,
                        StoredVectorOf(tenant, attribution.causal_ablation().reference()));
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    VS_ASSIGN_OR_RETURN(auto method, MethodOf(attribution, std::move(vectors), *model));
    return WorkOf(std::move(inputs), std::move(method), *model, /*can_wait=*/false);
  }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_RETURN_IF_ERROR(CheckAttributionOptions(request));
    VS_ASSIGN_OR_RETURN(ResolvedAttribution method,
                        ResolveAttribution(request, *model, context, sources_, resolved.used));
    services::ResolveOptions with_labels = options;
    with_labels.labels_required =
        !HasTarget(method.record) ||
        method.record.attribution_patching().baseline() == v1::PATCHING_BASELINE_MEAN;
    VS_ASSIGN_OR_RETURN(ResponseInputs inputs, InputsOfRequest(request, model, context, with_labels,
                                                               sources_, resolved.used));
    SavedWork& record = inputs.record;
    record.set_responses_per_shard(ResponsesPerLargeShard(record.num_responses()));
    *record.mutable_provenance() = ProvenanceOf(
        request, *model, inputs.responses, resolved.used, model::Site::kMlpNeurons,
        {"model", "responses", "artifact", "vector", "judge", "display_name", "request_id"});
    if (HasTarget(method.record)) {
      record.mutable_provenance()->set_sign_rule("mean over the expressing responses");
    }
    *record.mutable_attribute_neurons() = method.record;
    if (!options.at_once) VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    // Columns: score and two means, float64, of every neuron.
    resolved.estimate =
        EstimateOf(*model, inputs.responses,
                   method.record.layers_size() * model->architecture.intermediate * 3 * 8);
    resolved.needs = services::NeedOfModel(*model);
    if (HasTarget(method.record)) {
      VS_RETURN_IF_ERROR(CheckTarget(method, *model, context, inputs, options, resolved));
    }
    VS_ASSIGN_OR_RETURN(auto how, MethodOf(method.record, std::move(method.vectors), *model));
    VS_ASSIGN_OR_RETURN(resolved.work, WorkOf(std::move(inputs), std::move(how), *model,
                                              /*can_wait=*/!options.at_once));
    return resolved;
  }

  void Answered(const Request&, const services::ResolvedWork& resolved, const AttributionWork& work,
                const AttributionOutcome& outcome, const std::vector<store::Resource>& stored,
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

 private:
  // Also what they cost.
  static absl::Status CheckTarget(const ResolvedAttribution& method,
                                  const engine::ServedModel& model, const rpc::CallContext& context,
                                  const ResponseInputs& inputs,
                                  const services::ResolveOptions& options,
                                  services::ResolvedWork& resolved) {
    VS_ASSIGN_OR_RETURN(const studies::TargetPlan plan,
                        TargetPlanOf(method.record, method.vectors, model.architecture));
    const studies::ResponseSet& responses = inputs.responses;
    VS_RETURN_IF_ERROR(NamedAsAsked(
        method.record,
        studies::CheckTargetPlan(*model.engine, responses.responses, plan, context.cancellation)));
    const studies::TargetCost cost = CostOf(plan, model.architecture,
                                            static_cast<double>(responses.num_tokens) /
                                                static_cast<double>(responses.responses.size()));
    if (options.at_once && cost.passes * responses.num_expressing > kMostPassesAtOnce) {
      return NeverFits("USE_A_JOB",
                       absl::StrCat("takes up to ", cost.passes * responses.num_expressing,
                                    " passes, one call takes ", kMostPassesAtOnce,
                                    "; create a job with the same request"));
    }
    resolved.estimate.time *= cost.forwards;
    resolved.estimate.forwards = static_cast<int64_t>(
        std::ceil(static_cast<double>(resolved.estimate.forwards) * cost.forwards));
    return absl::OkStatus();
  }

  static absl::StatusOr<std::unique_ptr<AttributionWork>> WorkOf(
      ResponseInputs inputs, std::unique_ptr<studies::AttributionMethod> method,
      const engine::ServedModel& model, bool can_wait) {
    const int64_t bytes = AttributionWork::BytesOf(
        *method, inputs.record.attribute_neurons().layers_size(), model.architecture.intermediate);
    VS_ASSIGN_OR_RETURN(engine::KeptCaptures memory, KeptFor(*model.engine, bytes, can_wait));
    return std::make_unique<AttributionWork>(std::move(inputs), std::move(method),
                                             model.architecture.intermediate, std::move(memory));
  }
};

}  // namespace

std::unique_ptr<services::Kind> AttributeNeurons(const Sources& sources) {
  return std::make_unique<AttributeNeuronsKind>(sources);
}

}  // namespace valuescope::kinds
