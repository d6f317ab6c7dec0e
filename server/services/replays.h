// Answers to requests that were answered before: the same request_id with the same body. They come
// from what the first run stored, whatever models are loaded now, and none of the work is done
// again: numbers of another run beside the first one's name and digest would belong to nothing.
//
// Of the first answer of an extraction they lack the warnings, which are not stored (a warning says
// so), and usage is 0, because nothing was used.
#ifndef VALUESCOPE_SERVICES_REPLAYS_H_
#define VALUESCOPE_SERVICES_REPLAYS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/score_selectivity.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::services {

// What an earlier request with this key stored first; nullopt where there was none. ALREADY_EXISTS
// where the id was used for another body, NOT_FOUND where the result was deleted since.
absl::StatusOr<std::optional<store::Resource>> EarlierResult(store::Store& store,
                                                             const std::string& tenant,
                                                             const store::IdempotencyKey& key);

// The model and the inputs of a result.
void AddDigests(const v1::Provenance& provenance,
                google::protobuf::RepeatedPtrField<v1::ResourceDigest>* digests);

// All that it stored, in order; likewise.
absl::StatusOr<std::vector<store::Resource>> EarlierResults(store::Store& store,
                                                            const std::string& tenant,
                                                            const store::IdempotencyKey& key);

absl::Status ReplayCreateVector(const store::Resource& resource,
                                v1::CreateVectorResponse* response);
absl::Status ReplayImportVectors(const std::vector<store::Resource>& resources,
                                 v1::ImportVectorsResponse* response);
absl::Status ReplayExtractVectors(const store::Resource& resource, store::BlobStore& blobs,
                                  v1::ExtractVectorsResponse* response);
absl::Status ReplayAttributeNeurons(const store::Resource& resource, store::BlobStore& blobs,
                                    v1::AttributeNeuronsResponse* response);
absl::Status ReplayClassifyNeurons(const store::Resource& resource, store::BlobStore& blobs,
                                   v1::ClassifyNeuronsResponse* response);
absl::Status ReplayScoreSelectivity(const store::Resource& resource, store::BlobStore& blobs,
                                    v1::ScoreSelectivityResponse* response);

// The whole answer about a set of selectivity, `set` without `top`: to the first request as to
// those that repeat it.
void TellSelectivity(const store::Resource& resource, const v1::NeuronSet& set,
                     const studies::Selectivity& selectivity,
                     v1::ScoreSelectivityResponse* response);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_REPLAYS_H_
