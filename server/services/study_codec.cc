#include "services/study_codec.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/util/time_util.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

template <typename Message>
void Describe(const store::Resource& resource, Message& message) {
  message.set_name(store::ResourceName(resource.kind, resource.id));
  message.set_digest(resource.digest);
  message.set_display_name(resource.display_name);
  message.set_owner(resource.tenant);
  *message.mutable_create_time() = TimeToProto(resource.created_at);
}

bool Chosen(const VectorView& view, int layer) {
  return view.layers.empty() || std::binary_search(view.layers.begin(), view.layers.end(), layer);
}

}  // namespace

google::protobuf::Timestamp TimeToProto(absl::Time time) {
  return google::protobuf::util::TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(time));
}

v1::Site SiteToProto(model::Site site) {
  // The contract lists sites in the order of the forward pass, after UNSPECIFIED.
  return static_cast<v1::Site>(static_cast<int>(site) + 1);
}
static_assert(static_cast<int>(model::Site::kEmbedding) + 1 == v1::SITE_EMBEDDING);
static_assert(static_cast<int>(model::Site::kResidualPost) + 1 == v1::SITE_RESIDUAL_POST);
static_assert(static_cast<int>(model::Site::kMlpNeurons) + 1 == v1::SITE_MLP_NEURONS);
static_assert(static_cast<int>(model::Site::kLogits) + 1 == v1::SITE_LOGITS);
static_assert(static_cast<int>(analysis::NeuronClass::kNone) + 1 == v1::NEURON_CLASS_NONE);
static_assert(static_cast<int>(analysis::NeuronClass::kSharedNegative) + 1 ==
              v1::NEURON_CLASS_SHARED_NEGATIVE);

v1::Provenance ProvenanceToProto(const studies::Provenance& provenance) {
  v1::Provenance message;
  message.set_format_version(studies::kProvenanceVersion);
  message.set_model(provenance.model);
  message.set_model_digest(provenance.model_digest);
  message.set_tokenizer_digest(provenance.tokenizer_digest);
  message.set_template_digest(provenance.template_digest);
  message.set_site(SiteToProto(provenance.site));
  message.set_layer_convention(studies::kLayerConvention);
  if (provenance.pooling == studies::kResponseMeanPooling) {
    message.set_pooling(v1::POOLING_RESPONSE_MEAN);
  }
  message.set_sign_rule(provenance.sign_rule);
  message.set_judge(provenance.judge);
  message.mutable_seeds()->Assign(provenance.seeds.begin(), provenance.seeds.end());
  message.set_num_expressing(provenance.num_expressing);
  message.set_num_non_expressing(provenance.num_non_expressing);
  message.set_num_dropped(provenance.num_dropped);
  for (const studies::InputDigest& input : provenance.inputs) {
    v1::ResourceDigest& digest = *message.add_inputs();
    digest.set_name(input.name);
    digest.set_digest(input.digest);
  }
  message.set_options(provenance.options);
  if (provenance.compute_dtype) {
    message.set_compute_dtype(DataTypeToProto(*provenance.compute_dtype));
  }
  message.set_determinism(provenance.determinism);
  message.set_hardware_class(provenance.hardware_class);
  return message;
}

std::vector<studies::InputDigest> InputsOf(const UsedResources& used, absl::string_view data_set) {
  std::vector<studies::InputDigest> inputs;
  for (const auto& [name, digest] : used) {
    inputs.push_back({name == data_set ? studies::kDataSetInput : name, digest});
  }
  return inputs;
}

v1::VectorStatistics StatisticsToProto(const studies::RowStatistics& row) {
  v1::VectorStatistics message;
  message.set_layer(row.layer);
  message.set_num_expressing(row.num_expressing);
  message.set_num_non_expressing(row.num_non_expressing);
  message.set_norm(row.norm);
  if (row.relative_norm) message.set_relative_norm(*row.relative_norm);
  if (row.split_half_cosine) message.set_split_half_cosine(*row.split_half_cosine);
  if (row.reliability) message.set_reliability(*row.reliability);
  if (row.norm_interval) {
    message.mutable_norm_interval()->set_lower(row.norm_interval->lower);
    message.mutable_norm_interval()->set_upper(row.norm_interval->upper);
    message.mutable_norm_interval()->set_level(row.norm_interval->level);
  }
  if (row.auroc) message.set_auroc(*row.auroc);
  if (row.debiased_squared_norm) message.set_debiased_squared_norm(*row.debiased_squared_norm);
  return message;
}

int64_t DataBytes(const studies::StoredVector& vector, size_t num_layers) {
  return static_cast<int64_t>(num_layers) * vector.width * static_cast<int64_t>(sizeof(float));
}

v1::Vector VectorToProto(const store::Resource& resource, const studies::StoredVector& vector,
                         const VectorView& view) {
  v1::Vector message;
  Describe(resource, message);
  message.set_model(vector.model);
  message.set_model_digest(vector.model_digest);
  message.set_site(SiteToProto(vector.site));
  message.set_width(static_cast<int32_t>(vector.width));
  *message.mutable_provenance() = ProvenanceToProto(vector.provenance);
  std::string data;
  for (int64_t row = 0; row < vector.num_rows(); ++row) {
    if (!vector.layers.empty()) {
      const int layer = vector.layers[static_cast<size_t>(row)];
      if (!Chosen(view, layer)) continue;
      message.add_layers(layer);
    }
    if (!view.with_data) continue;
    const std::span<const float> values = vector.row(row);
    data.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  }
  if (view.with_data) {
    message.mutable_data()->set_dtype(v1::DATA_TYPE_FLOAT32);
    message.mutable_data()->add_shape(vector.layers.empty() ? 1 : message.layers_size());
    message.mutable_data()->add_shape(vector.width);
    message.mutable_data()->set_data(std::move(data));
  }
  if (view.with_statistics) {
    for (const studies::RowStatistics& row : vector.statistics) {
      if (Chosen(view, row.layer)) *message.add_statistics() = StatisticsToProto(row);
    }
  }
  return message;
}

v1::NeuronScore NeuronScoreToProto(const studies::NeuronScore& score) {
  v1::NeuronScore message;
  message.set_layer(score.layer);
  message.set_index(score.index);
  message.set_score(score.score);
  if (score.neuron_class) {
    message.set_class_(static_cast<v1::NeuronClass>(studies::ContractNumber(*score.neuron_class)));
  }
  if (score.angle) message.set_angle(*score.angle);
  return message;
}

v1::NeuronSet NeuronSetToProto(const store::Resource& resource, const studies::StoredNeuronSet& set,
                               std::span<const studies::NeuronScore> top) {
  v1::NeuronSet message;
  Describe(resource, message);
  message.set_model(set.model);
  message.set_model_digest(set.model_digest);
  message.set_method(set.method);
  for (const studies::NeuronSetLayer& layer : set.layers) {
    v1::NeuronSetLayer& entry = *message.add_layers();
    entry.set_layer(layer.layer);
    entry.set_num_neurons(layer.num_neurons);
    entry.set_num_members(layer.num_members);
    entry.set_score_sum(layer.score_sum);
    entry.set_score_min(layer.score_min);
    entry.set_score_max(layer.score_max);
    for (const studies::ClassCount& count : layer.classes) {
      v1::NeuronClassCount& proto = *entry.add_classes();
      proto.set_class_(static_cast<v1::NeuronClass>(studies::ContractNumber(count.neuron_class)));
      proto.set_count(count.count);
      proto.set_expected_count(count.expected);
    }
  }
  for (const std::string& warning : set.warnings) message.add_warnings(warning);
  for (const studies::NeuronScore& score : top) *message.add_top() = NeuronScoreToProto(score);
  message.set_artifact(
      store::ResourceName(store::ResourceKind::kArtifact,
                          absl::StrCat(studies::kNeuronSetArtifactPrefix, resource.id)));
  *message.mutable_provenance() = ProvenanceToProto(set.provenance);
  return message;
}

}  // namespace valuescope::services
