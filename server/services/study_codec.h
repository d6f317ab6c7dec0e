// Studies' stored things as messages of the contract: vectors, neuron sets and where they come
// from. Names, times and owners are the store's.
#ifndef VALUESCOPE_SERVICES_STUDY_CODEC_H_
#define VALUESCOPE_SERVICES_STUDY_CODEC_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"
#include "model/site.h"
#include "services/request_codec.h"
#include "store/store.h"
#include "studies/provenance.h"
#include "studies/stored_neuron_set.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::services {

google::protobuf::Timestamp TimeToProto(absl::Time time);
v1::Site SiteToProto(model::Site site);
v1::Provenance ProvenanceToProto(const studies::Provenance& provenance);
v1::VectorStatistics StatisticsToProto(const studies::RowStatistics& row);

// What a study records of `used`. The data set, artifacts/ID or empty, goes by its content.
std::vector<studies::InputDigest> InputsOf(const UsedResources& used,
                                           absl::string_view data_set = "");

// Rows that a Vector message carries.
struct VectorView {
  bool with_data = false;  // `vector` was read with its rows
  bool with_statistics = false;
  std::vector<int> layers;  // rows chosen, ascending; empty: all
};

// `layers` of `view` must be the vector's.
v1::Vector VectorToProto(const store::Resource& resource, const studies::StoredVector& vector,
                         const VectorView& view);

// Tensor bytes in one message, below its 4 MB.
inline constexpr int64_t kMaxMessageData = 3 << 20;

// Bytes that the rows would take in a message.
int64_t DataBytes(const studies::StoredVector& vector, size_t num_layers);

v1::NeuronScore NeuronScoreToProto(const studies::NeuronScore& score);

// `top` is left out where it is empty. The set's columns are artifacts/neuron-set.ID.
v1::NeuronSet NeuronSetToProto(const store::Resource& resource, const studies::StoredNeuronSet& set,
                               std::span<const studies::NeuronScore> top);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_STUDY_CODEC_H_
