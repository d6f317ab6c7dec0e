// The job kind "attribute_neurons": direct contribution over a data set, cut into shards of fixed
// composition.
//
// Everything is resolved when the job is created, so that a worker depends on nothing that can
// change: the spec (JSON, format_version 1) names the model, the vector and the data set by digest.
// The data set is the tokenised form of labelled_responses.h, kept as a blob.
//
// Shards. A shard has kResponsesPerChunk responses, more (a multiple of it) where there would be
// more than kMaxAttributionShards: the sums of a shard are as large as all neurons. Within a shard
// every chunk is committed. Partial: ActivationSums. Cursor: responses done. Units: responses.
//
// Artifacts: "scores", the columns of stored_neuron_set.h; "summary", JSON with counts, sums a
// layer, the top neurons and the provenance, nothing of time or place. Resource: the neuron set.
#ifndef VALUESCOPE_STUDIES_ATTRIBUTE_NEURONS_JOB_H_
#define VALUESCOPE_STUDIES_ATTRIBUTE_NEURONS_JOB_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/served_model.h"
#include "jobs/job_kind.h"
#include "store/blob_store.h"
#include "studies/attribute_neurons.h"
#include "studies/labelled_responses.h"
#include "studies/provenance.h"

namespace valuescope::studies {

inline constexpr char kAttributeNeuronsKind[] = "attribute_neurons";
inline constexpr int64_t kMaxAttributionShards = 32;

struct AttributeNeuronsSpec {
  std::string model;         // id, without "models/"
  std::string model_digest;  // its weights
  std::string vector_id;
  std::string vector_digest;  // of the content
  std::string data_set_blob;  // digest of the tokenised data set
  int64_t num_responses = 0;  // in it
  int64_t responses_per_shard = kResponsesPerChunk;
  std::vector<int> layers;  // ascending
  std::optional<int> source_layer;
  int64_t top_k = 100;
  std::string display_name;
  Provenance provenance;  // of the result
};

// What a worker must have for a job on a model: store::NewJob::needs.
std::string NeedsOfModel(absl::string_view id);

// A fixed function of the number of responses.
int64_t ResponsesPerShard(int64_t num_responses);

std::string SpecToJson(const AttributeNeuronsSpec& spec);
// DATA_LOSS for another format or impossible numbers.
absl::StatusOr<AttributeNeuronsSpec> SpecFromJson(absl::string_view json);

// What a finished attribution leaves, whether a job or a call at once made it.
struct AttributionResult {
  StoredNeuronSet set;
  std::vector<NeuronScore> top;
  std::string columns;  // the file
  std::string summary;  // JSON of the "summary" artifact
};

AttributionResult SummariseAttribution(const std::vector<NeuronColumns>& columns,
                                       const AttributeNeuronsSpec& spec, int64_t num_tokens);

class AttributeNeuronsJob : public jobs::JobKind {
 public:
  // All outlive the kind.
  AttributeNeuronsJob(engine::ModelRegistry* models, store::Store* store, store::BlobStore* blobs)
      : models_(models), store_(store), blobs_(blobs) {}

  absl::string_view Name() const override { return kAttributeNeuronsKind; }
  absl::StatusOr<int64_t> NumShards(absl::string_view spec) const override;
  // OK where the model is READY, whatever weights it has.
  absl::Status Readiness(absl::string_view needs) const override;
  // NotReady where the model is not READY, or no longer: between two chunks a shard lets go of it.
  // FAILED_PRECONDITION (reason WRONG_MODEL) where it has other weights than at the job's creation.
  absl::StatusOr<jobs::ShardResult> RunShard(jobs::ShardContext& context) override;
  absl::StatusOr<jobs::JobResult> Merge(const jobs::MergeContext& context) override;

 private:
  absl::StatusOr<std::shared_ptr<const engine::ServedModel>> Model(
      const AttributeNeuronsSpec& spec) const;
  absl::StatusOr<ResponseSet> DataSet(const AttributeNeuronsSpec& spec) const;

  engine::ModelRegistry* const models_;
  store::Store* const store_;
  store::BlobStore* const blobs_;
};

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_ATTRIBUTE_NEURONS_JOB_H_
