#include "services/replays.h"

#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "services/study_codec.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"

namespace valuescope::services {
namespace {

constexpr char kReplayed[] =
    "answered from what the first request with this request_id stored; its warnings are not kept";

// What the request made, which is the tenant's own: where that is gone, what somebody published
// under its name is none of its results.
absl::StatusOr<store::Resource> StillOwn(store::Store& store, const std::string& tenant,
                                         const store::ResourceReference& reference) {
  VS_ASSIGN_OR_RETURN(store::Resource resource,
                      store.GetResource(tenant, reference.kind, reference.id));
  if (resource.tenant == tenant) return resource;
  return ResourceNotFound(store::ResourceName(reference.kind, reference.id));
}

// With the top neurons, as GetNeuronSet.
absl::StatusOr<v1::NeuronSet> ReadSet(const store::Resource& resource, const v1::NeuronSet& set,
                                      store::BlobStore& blobs) {
  VS_ASSIGN_OR_RETURN(const auto columns, studies::ReadColumns(blobs, resource));
  return NeuronSetToProto(resource, set, studies::TopNeurons(columns, set.top_k()));
}

}  // namespace

void AddDigests(const v1::Provenance& provenance,
                google::protobuf::RepeatedPtrField<v1::ResourceDigest>* digests) {
  v1::ResourceDigest& model = *digests->Add();
  model.set_name(provenance.model());
  model.set_digest(provenance.model_digest());
  digests->MergeFrom(provenance.inputs());
}

absl::StatusOr<std::vector<store::Resource>> EarlierResults(store::Store& store,
                                                            const std::string& tenant,
                                                            const store::IdempotencyKey& key) {
  VS_ASSIGN_OR_RETURN(const auto earlier, store.FindRequest(tenant, key));
  std::vector<store::Resource> results;
  if (!earlier) return results;
  for (const store::ResourceReference& reference : earlier->references) {
    VS_ASSIGN_OR_RETURN(results.emplace_back(), StillOwn(store, tenant, reference));
  }
  return results;
}

absl::StatusOr<std::optional<store::Resource>> EarlierResult(store::Store& store,
                                                             const std::string& tenant,
                                                             const store::IdempotencyKey& key) {
  VS_ASSIGN_OR_RETURN(const auto earlier, store.FindRequest(tenant, key));
  if (!earlier || earlier->references.empty()) return std::nullopt;
  const store::ResourceReference& first = earlier->references.front();
  VS_ASSIGN_OR_RETURN(store::Resource resource, StillOwn(store, tenant, first));
  return resource;
}

absl::Status ReplayCreateVector(const store::Resource& resource,
                                v1::CreateVectorResponse* response) {
  VS_ASSIGN_OR_RETURN(const studies::StoredVector vector, studies::DescribeVector(resource));
  *response->mutable_vector() = VectorToProto(resource, vector, {});
  return absl::OkStatus();
}

absl::Status ReplayImportVectors(const std::vector<store::Resource>& resources,
                                 v1::ImportVectorsResponse* response) {
  for (const store::Resource& resource : resources) {
    VS_ASSIGN_OR_RETURN(const studies::StoredVector vector, studies::DescribeVector(resource));
    *response->add_vectors() = VectorToProto(resource, vector, {});
  }
  return absl::OkStatus();
}

absl::Status ReplayExtractVectors(const store::Resource& resource, store::BlobStore& blobs,
                                  v1::ExtractVectorsResponse* response) {
  VS_ASSIGN_OR_RETURN(const studies::StoredVector vector, studies::ReadVector(blobs, resource));
  const bool fits = DataBytes(vector, static_cast<size_t>(vector.num_rows())) <= kMaxMessageData;
  *response->mutable_vector() =
      VectorToProto(resource, vector, {.with_data = fits, .with_statistics = false, .layers = {}});
  *response->mutable_statistics() = vector.record.statistics();
  const v1::Provenance& provenance = vector.record.provenance();
  response->set_num_dropped(provenance.num_dropped());
  AddDigests(provenance, response->mutable_digests());
  // Earlier servers recorded the request's; of generated responses there are two others.
  if (provenance.seeds_size() == 1) response->set_seed(provenance.seeds(0));
  response->add_warnings(kReplayed);
  return absl::OkStatus();
}

absl::Status ReplayAttributeNeurons(const store::Resource& resource, store::BlobStore& blobs,
                                    v1::AttributeNeuronsResponse* response) {
  VS_ASSIGN_OR_RETURN(const v1::NeuronSet set, studies::DescribeNeuronSet(resource));
  VS_ASSIGN_OR_RETURN(*response->mutable_neuron_set(), ReadSet(resource, set, blobs));
  response->set_num_expressing(set.provenance().num_expressing());
  response->set_num_non_expressing(set.provenance().num_non_expressing());
  response->set_num_dropped(set.provenance().num_dropped());
  AddDigests(set.provenance(), response->mutable_digests());
  *response->mutable_warnings() = response->neuron_set().warnings();
  return absl::OkStatus();
}

absl::Status ReplayClassifyNeurons(const store::Resource& resource, store::BlobStore& blobs,
                                   v1::ClassifyNeuronsResponse* response) {
  VS_ASSIGN_OR_RETURN(const v1::NeuronSet set, studies::DescribeNeuronSet(resource));
  VS_ASSIGN_OR_RETURN(*response->mutable_neuron_set(), ReadSet(resource, set, blobs));
  AddDigests(set.provenance(), response->mutable_digests());
  *response->mutable_warnings() = response->neuron_set().warnings();
  return absl::OkStatus();
}

absl::Status ReplayScoreSelectivity(const store::Resource& resource, store::BlobStore& blobs,
                                    v1::ScoreSelectivityResponse* response) {
  VS_ASSIGN_OR_RETURN(const v1::NeuronSet set, studies::DescribeNeuronSet(resource));
  studies::Selectivity selectivity;
  VS_ASSIGN_OR_RETURN(selectivity.columns, studies::ReadColumns(blobs, resource));
  VS_ASSIGN_OR_RETURN(selectivity.activity_threshold,
                      studies::ReadActivityThreshold(blobs, resource));
  TellSelectivity(resource, set, selectivity, response);
  return absl::OkStatus();
}

void TellSelectivity(const store::Resource& resource, const v1::NeuronSet& set,
                     const studies::Selectivity& selectivity,
                     v1::ScoreSelectivityResponse* response) {
  *response->mutable_neuron_set() =
      NeuronSetToProto(resource, set, studies::TopNeurons(selectivity.columns, set.top_k()));
  // No input is there twice, so each is a value.
  studies::DescribeSelectivity(selectivity, set.provenance().inputs_size(), set.top_k(), *response);
  AddDigests(set.provenance(), response->mutable_digests());
  *response->mutable_warnings() = set.warnings();
}

}  // namespace valuescope::services
