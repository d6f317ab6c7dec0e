#include "services/study_codec.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "google/protobuf/util/time_util.h"
#include "studies/provenance.h"
#include "studies/stored_neuron_set.h"

namespace valuescope::services {
namespace {

// Of a timestamp: from 0001-01-01 to 9999-12-31.
constexpr int64_t kFirstSecond = -62'135'596'800;
constexpr int64_t kLastSecond = 253'402'300'799;
constexpr int32_t kMostNanoseconds = 999'999'999;

template <typename Message>
void Describe(const store::Resource& resource, Message& message) {
  message.set_name(store::ResourceName(resource.kind, resource.id));
  message.set_digest(resource.digest);
  message.set_display_name(resource.display_name);
  message.set_owner(resource.owner());
  *message.mutable_create_time() = TimeToProto(resource.created_at);
}

bool Chosen(const VectorView& view, int layer) {
  return view.layers.empty() || std::binary_search(view.layers.begin(), view.layers.end(), layer);
}

}  // namespace

google::protobuf::Timestamp TimeToProto(absl::Time time) {
  return google::protobuf::util::TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(time));
}

absl::StatusOr<absl::Time> TimeFromProto(absl::string_view field,
                                         const google::protobuf::Timestamp& time) {
  if (time.seconds() < kFirstSecond || time.seconds() > kLastSecond) {
    return OutOfRange(absl::StrCat(field, ".seconds"), static_cast<double>(time.seconds()),
                      kFirstSecond, kLastSecond);
  }
  if (time.nanos() < 0 || time.nanos() > kMostNanoseconds) {
    return OutOfRange(absl::StrCat(field, ".nanos"), time.nanos(), 0, kMostNanoseconds);
  }
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

absl::StatusOr<store::ResourceFilter> FilterByModel(const std::string& model,
                                                    bool (*is_of_model)(const store::Resource&,
                                                                        const std::string&)) {
  if (model.empty()) return store::ResourceFilter();
  VS_RETURN_IF_ERROR(IdOfName("model", "models", model).status());
  return store::ResourceFilter{
      .model = model, .is_of_model = [model, is_of_model](const store::Resource& resource) {
        return is_of_model(resource, model);
      }};
}

google::protobuf::RepeatedPtrField<v1::ResourceDigest> InputsOf(const UsedResources& used,
                                                                absl::string_view data_set) {
  google::protobuf::RepeatedPtrField<v1::ResourceDigest> inputs;
  for (const auto& [name, digest] : used) {
    v1::ResourceDigest& input = *inputs.Add();
    input.set_name(name == data_set ? studies::kDataSetInput : name);
    input.set_digest(digest);
  }
  return inputs;
}

int64_t DataBytes(const studies::StoredVector& vector, size_t num_layers) {
  return static_cast<int64_t>(num_layers) * vector.width() * static_cast<int64_t>(sizeof(float));
}

v1::Vector VectorToProto(const store::Resource& resource, const studies::StoredVector& vector,
                         const VectorView& view) {
  v1::Vector message = vector.record;
  Describe(resource, message);
  message.clear_layers();
  message.clear_statistics();
  std::string data;
  for (int64_t row = 0; row < vector.num_rows(); ++row) {
    if (vector.record.layers_size() > 0) {
      const int layer = vector.record.layers(static_cast<int>(row));
      if (!Chosen(view, layer)) continue;
      message.add_layers(layer);
    }
    if (!view.with_data) continue;
    const std::span<const float> values = vector.row(row);
    data.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  if (view.with_data) {
    message.mutable_data()->set_dtype(v1::DATA_TYPE_FLOAT32);
    message.mutable_data()->add_shape(message.layers().empty() ? 1 : message.layers_size());
    message.mutable_data()->add_shape(vector.width());
    message.mutable_data()->set_data(std::move(data));
  }
  if (view.with_statistics) {
    for (const v1::VectorStatistics& row : vector.record.statistics()) {
      if (Chosen(view, row.layer())) *message.add_statistics() = row;
    }
  }
  return message;
}

v1::NeuronSet NeuronSetToProto(const store::Resource& resource, v1::NeuronSet set,
                               google::protobuf::RepeatedPtrField<v1::NeuronScore> top) {
  Describe(resource, set);
  *set.mutable_top() = std::move(top);
  set.set_artifact(
      store::ResourceName(store::ResourceKind::kArtifact,
                          absl::StrCat(studies::kNeuronSetArtifactPrefix, resource.id)));
  return set;
}

}  // namespace valuescope::services
