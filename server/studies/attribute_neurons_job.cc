#include "studies/attribute_neurons_job.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "studies/json_fields.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

using nlohmann::json;

constexpr int kSpecVersion = 1;
constexpr int kSummaryVersion = 1;
constexpr char kModels[] = "models/";
// Neurons in a job's summary, which is the head of the "summary" artifact.
constexpr size_t kHeadNeurons = 10;

json ScoresToJson(const std::vector<NeuronScore>& neurons, size_t count) {
  json list = json::array();
  for (size_t i = 0; i < std::min(count, neurons.size()); ++i) {
    list.push_back(
        {{"layer", neurons[i].layer}, {"index", neurons[i].index}, {"score", neurons[i].score}});
  }
  return list;
}

json LayersToJson(const std::vector<NeuronSetLayer>& layers) {
  json list = json::array();
  for (const NeuronSetLayer& layer : layers) {
    list.push_back({{"layer", layer.layer},
                    {"num_neurons", layer.num_neurons},
                    {"num_members", layer.num_members},
                    {"score_sum", layer.score_sum},
                    {"score_min", layer.score_min},
                    {"score_max", layer.score_max}});
  }
  return list;
}

// `top` neurons, as many as `count`, under the same keys in the artifact and in the job's summary.
std::string SummaryJson(const AttributionResult& result, int64_t num_tokens, size_t count,
                        bool with_provenance) {
  const Provenance& provenance = result.set.provenance;
  json summary = {{"format_version", kSummaryVersion},
                  {"method", result.set.method},
                  {"num_expressing", provenance.num_expressing},
                  {"num_non_expressing", provenance.num_non_expressing},
                  {"num_dropped", provenance.num_dropped},
                  {"num_tokens", num_tokens},
                  {"layers", LayersToJson(result.set.layers)},
                  {"top", ScoresToJson(result.top, count)}};
  if (with_provenance) summary["provenance"] = json::parse(ProvenanceToJson(provenance));
  return DumpJson(summary, with_provenance ? 1 : -1);
}

absl::StatusOr<jobs::ArtifactDraft> Draft(store::BlobStore& blobs, std::string role,
                                          std::string display_name, std::string media_type,
                                          absl::string_view bytes, const Provenance& provenance) {
  VS_ASSIGN_OR_RETURN(store::StoredBlob blob, store::WriteBlob(blobs, bytes));
  jobs::ArtifactDraft draft;
  draft.role = std::move(role);
  draft.display_name = std::move(display_name);
  draft.media_type = std::move(media_type);
  draft.metadata = DumpJson({{"format_version", 1}, {"provenance", ProvenanceToJson(provenance)}});
  draft.blob = std::move(blob);
  return draft;
}

}  // namespace

int64_t ResponsesPerShard(int64_t num_responses) {
  const int64_t chunks = (num_responses + kResponsesPerChunk - 1) / kResponsesPerChunk;
  const int64_t chunks_per_shard = (chunks + kMaxAttributionShards - 1) / kMaxAttributionShards;
  return std::max<int64_t>(1, chunks_per_shard) * kResponsesPerChunk;
}

std::string SpecToJson(const AttributeNeuronsSpec& spec) {
  return DumpJson({{"format_version", kSpecVersion},
                   {"model", spec.model},
                   {"model_digest", spec.model_digest},
                   {"vector_id", spec.vector_id},
                   {"vector_digest", spec.vector_digest},
                   {"data_set_blob", spec.data_set_blob},
                   {"num_responses", spec.num_responses},
                   {"responses_per_shard", spec.responses_per_shard},
                   {"layers", spec.layers},
                   {"source_layer", spec.source_layer ? json(*spec.source_layer) : json(nullptr)},
                   {"top_k", spec.top_k},
                   {"display_name", spec.display_name},
                   {"provenance", ProvenanceToJson(spec.provenance)}});
}

absl::StatusOr<AttributeNeuronsSpec> SpecFromJson(absl::string_view text) {
  AttributeNeuronsSpec spec;
  std::string provenance;
  VS_RETURN_IF_ERROR(ReadJson(text, kSpecVersion, [&](const json& value) {
    spec.model = value.at("model").get<std::string>();
    spec.model_digest = value.at("model_digest").get<std::string>();
    spec.vector_id = value.at("vector_id").get<std::string>();
    spec.vector_digest = value.at("vector_digest").get<std::string>();
    spec.data_set_blob = value.at("data_set_blob").get<std::string>();
    spec.num_responses = value.at("num_responses").get<int64_t>();
    spec.responses_per_shard = value.at("responses_per_shard").get<int64_t>();
    spec.layers = value.at("layers").get<std::vector<int>>();
    const json& source = value.at("source_layer");
    if (!source.is_null()) spec.source_layer = source.get<int>();
    spec.top_k = value.at("top_k").get<int64_t>();
    spec.display_name = value.at("display_name").get<std::string>();
    provenance = value.at("provenance").get<std::string>();
  }));
  VS_ASSIGN_OR_RETURN(spec.provenance, ProvenanceFromJson(provenance));
  if (spec.num_responses < 1 || spec.responses_per_shard < 1) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                           "the stored spec of a job holds impossible numbers");
  }
  return spec;
}

AttributionResult SummariseAttribution(const std::vector<NeuronColumns>& columns,
                                       const AttributeNeuronsSpec& spec, int64_t num_tokens) {
  AttributionResult result;
  result.top = TopNeurons(columns, spec.top_k);
  result.set.model = absl::StrCat("models/", spec.model);
  result.set.model_digest = spec.model_digest;
  result.set.method = kDirectContributionMethod;
  result.set.display_name = spec.display_name;
  result.set.top_k = spec.top_k;
  result.set.layers = SummariseLayers(columns, result.top);
  result.set.provenance = spec.provenance;
  if (IsNoisy(spec.provenance.num_expressing, spec.provenance.num_non_expressing)) {
    result.set.warnings.push_back(absl::StrCat(
        "only ", spec.provenance.num_expressing, " expressing and ",
        spec.provenance.num_non_expressing, " non-expressing responses: the scores are noisy"));
  }
  result.columns = EncodeColumns(columns);
  result.summary = SummaryJson(result, num_tokens, result.top.size(), /*with_provenance=*/true);
  return result;
}

std::string NeedsOfModel(absl::string_view id) { return absl::StrCat(kModels, id); }

absl::Status AttributeNeuronsJob::Readiness(absl::string_view needs) const {
  const absl::Status model = models_->Get(absl::StripPrefix(needs, kModels)).status();
  return model.ok() ? model : jobs::NotReady(model.message());
}

absl::StatusOr<int64_t> AttributeNeuronsJob::NumShards(absl::string_view text) const {
  VS_ASSIGN_OR_RETURN(const AttributeNeuronsSpec spec, SpecFromJson(text));
  return (spec.num_responses - 1) / spec.responses_per_shard + 1;
}

absl::StatusOr<std::shared_ptr<const engine::ServedModel>> AttributeNeuronsJob::Model(
    const AttributeNeuronsSpec& spec) const {
  auto model = models_->Get(spec.model);
  if (!model.ok()) return jobs::NotReady(model.status().message());
  if ((*model)->weights_digest != spec.model_digest) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "WRONG_MODEL",
        absl::StrCat("models/", spec.model, " has other weights than when the job was created"));
  }
  return model;
}

absl::StatusOr<ResponseSet> AttributeNeuronsJob::DataSet(const AttributeNeuronsSpec& spec) const {
  VS_ASSIGN_OR_RETURN(const std::string bytes,
                      store::ReadBlob(*blobs_, spec.data_set_blob, kMaxDataSetBytes));
  VS_ASSIGN_OR_RETURN(ResponseSet set, DecodeResponseSet(bytes));
  if (static_cast<int64_t>(set.responses.size()) != spec.num_responses) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "DATA_SET_DAMAGED",
                           "the stored data set has another number of responses");
  }
  return set;
}

absl::StatusOr<jobs::ShardResult> AttributeNeuronsJob::RunShard(jobs::ShardContext& context) {
  VS_ASSIGN_OR_RETURN(const AttributeNeuronsSpec spec, SpecFromJson(context.spec()));
  VS_ASSIGN_OR_RETURN(auto model, Model(spec));
  VS_ASSIGN_OR_RETURN(const ResponseSet set, DataSet(spec));
  const int64_t width = static_cast<int64_t>(spec.layers.size()) * model->architecture.intermediate;
  const int64_t first = context.shard() * spec.responses_per_shard;
  const int64_t size = std::min(spec.responses_per_shard, spec.num_responses - first);
  ActivationSums sums(width);
  int64_t done = 0;
  if (!context.cursor().empty()) {
    if (!absl::SimpleAtoi(context.cursor(), &done) || done < 0 || done > size) {
      return ErrorWithReason(absl::StatusCode::kDataLoss, "PARTIAL_DAMAGED",
                             "the stored cursor of a shard is damaged");
    }
    VS_ASSIGN_OR_RETURN(sums, ActivationSums::Parse(context.partial(), width));
  }
  const AttributionPlan plan = {
      .tenant = context.tenant(), .layers = spec.layers, .background = true};
  const std::span<const LabelledResponse> all = set.responses;
  while (done < size) {
    const int64_t count = std::min(kResponsesPerChunk, size - done);
    const auto chunk = all.subspan(static_cast<size_t>(first + done), static_cast<size_t>(count));
    // Anew for every chunk: who unloads the model waits for a chunk and not for a shard.
    model = nullptr;
    VS_ASSIGN_OR_RETURN(model, Model(spec));
    VS_RETURN_IF_ERROR(AddChunk(*model->engine, chunk, plan, context.cancellation(), sums));
    done += count;
    if (done < size) {
      VS_RETURN_IF_ERROR(context.Checkpoint(sums.Serialize(), absl::StrCat(done), done));
    }
  }
  return jobs::ShardResult{.partial = sums.Serialize(), .work_done = size};
}

absl::StatusOr<jobs::JobResult> AttributeNeuronsJob::Merge(const jobs::MergeContext& context) {
  VS_ASSIGN_OR_RETURN(const AttributeNeuronsSpec spec, SpecFromJson(context.spec));
  VS_ASSIGN_OR_RETURN(const auto model, Model(spec));
  VS_ASSIGN_OR_RETURN(const ResponseSet set, DataSet(spec));
  const int64_t width = static_cast<int64_t>(spec.layers.size()) * model->architecture.intermediate;
  ActivationSums sums(width);
  for (int64_t shard = 0; shard < context.num_shards; ++shard) {
    VS_RETURN_IF_ERROR(CheckGoesOn(context.cancellation));
    VS_ASSIGN_OR_RETURN(const std::string partial, context.partial(shard));
    VS_ASSIGN_OR_RETURN(const ActivationSums part, ActivationSums::Parse(partial, width));
    VS_RETURN_IF_ERROR(sums.Merge(part));
  }
  VS_ASSIGN_OR_RETURN(
      const store::Resource resource,
      store_->GetResource(context.tenant, store::ResourceKind::kVector, spec.vector_id));
  VS_ASSIGN_OR_RETURN(const StoredVector vector, ReadVector(*blobs_, resource));
  VS_ASSIGN_OR_RETURN(const std::vector<NeuronColumns> columns,
                      ScoreNeurons(*model->engine, sums, vector, spec.layers, spec.source_layer,
                                   context.cancellation));
  const AttributionResult result = SummariseAttribution(columns, spec, set.num_tokens);
  jobs::JobResult job;
  VS_ASSIGN_OR_RETURN(job.artifacts.emplace_back(),
                      Draft(context.blobs, "scores", "scores.safetensors", kSafetensorsMediaType,
                            result.columns, spec.provenance));
  VS_ASSIGN_OR_RETURN(job.artifacts.emplace_back(),
                      Draft(context.blobs, "summary", "summary.json", "application/json",
                            result.summary, spec.provenance));
  job.resources.push_back(MakeNeuronSetResource(result.set, job.artifacts[0].blob));
  // By name: an earlier job may have made the same set, and then the set is that job's.
  json summary =
      json::parse(SummaryJson(result, set.num_tokens, kHeadNeurons, /*with_provenance=*/false));
  summary["neuron_sets"] = {
      store::ResourceName(store::ResourceKind::kNeuronSet, job.resources.back().id)};
  job.summary = DumpJson(summary);
  return job;
}

}  // namespace valuescope::studies
