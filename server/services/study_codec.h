// Records of vectors and neuron sets completed to what users see: names, times and owners are the
// store's, rows and members the blob's.
#ifndef VALUESCOPE_SERVICES_STUDY_CODEC_H_
#define VALUESCOPE_SERVICES_STUDY_CODEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "google/protobuf/timestamp.pb.h"
#include "services/request_codec.h"
#include "store/store.h"
#include "studies/contract_enums.h"
#include "studies/stored_vector.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::services {

using studies::SiteToProto;

google::protobuf::Timestamp TimeToProto(absl::Time time);
// INVALID_ARGUMENT naming a field beneath `field` of what is no timestamp of the years 1 to 9999.
absl::StatusOr<absl::Time> TimeFromProto(absl::string_view field,
                                         const google::protobuf::Timestamp& time);

// Of a list: all, or where `model` is not empty those of that models/ID, as `is_of_model` reads it.
absl::StatusOr<store::ResourceFilter> FilterByModel(const std::string& model,
                                                    bool (*is_of_model)(const store::Resource&,
                                                                        const std::string&));

// What a study records of `used`. The data set, artifacts/ID or empty, goes by its content.
google::protobuf::RepeatedPtrField<v1::ResourceDigest> InputsOf(const UsedResources& used,
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

// How many neurons a request wants inline. INVALID_ARGUMENT naming "top_k".
template <typename Request>
absl::StatusOr<int> TopKOf(const Request& request) {
  constexpr int kDefault = 100, kMost = 10000;
  const int top_k = request.has_top_k() ? request.top_k() : kDefault;
  if (top_k < 0 || top_k > kMost) return OutOfRange("top_k", top_k, 0, kMost);
  return top_k;
}

// The set's columns are artifacts/neuron-set.ID.
v1::NeuronSet NeuronSetToProto(const store::Resource& resource, v1::NeuronSet set,
                               google::protobuf::RepeatedPtrField<v1::NeuronScore> top);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_STUDY_CODEC_H_
