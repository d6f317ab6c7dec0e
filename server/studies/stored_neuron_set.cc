#include "studies/stored_neuron_set.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "studies/json_fields.h"
#include "studies/resource_naming.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

using analysis::NeuronClass;
using nlohmann::json;

constexpr int64_t kMaxColumnsFile = int64_t{1} << 31;

std::string ColumnName(int layer, absl::string_view column) {
  return absl::StrCat("layer.", layer, ".", column);
}

json LayerToJson(const NeuronSetLayer& layer) {
  json classes = json::array();
  for (const ClassCount& entry : layer.classes) {
    classes.push_back({{"class", ContractNumber(entry.neuron_class)},
                       {"count", entry.count},
                       {"expected", entry.expected}});
  }
  return {{"layer", layer.layer},
          {"num_neurons", layer.num_neurons},
          {"num_members", layer.num_members},
          {"classes", std::move(classes)},
          {"score_sum", layer.score_sum},
          {"score_min", layer.score_min},
          {"score_max", layer.score_max}};
}

NeuronSetLayer LayerFromJson(const json& value) {
  NeuronSetLayer layer;
  layer.layer = value.at("layer").get<int>();
  layer.num_neurons = value.at("num_neurons").get<int64_t>();
  layer.num_members = value.at("num_members").get<int64_t>();
  for (const json& entry : value.at("classes")) {
    const auto neuron_class = ClassOfContractNumber(entry.at("class").get<int32_t>());
    layer.classes.push_back({.neuron_class = neuron_class.value_or(NeuronClass::kNone),
                             .count = entry.at("count").get<int64_t>(),
                             .expected = entry.at("expected").get<double>()});
  }
  layer.score_sum = value.at("score_sum").get<double>();
  layer.score_min = value.at("score_min").get<double>();
  layer.score_max = value.at("score_max").get<double>();
  return layer;
}

// Columns of a set that assigns classes, read back.
absl::Status ReadClasses(const TensorFile& file, NeuronColumns& columns) {
  const auto size = static_cast<int64_t>(columns.scores.size());
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> numbers,
                      file.Int32s(ColumnName(columns.layer, "class"), size));
  for (const int32_t number : numbers) {
    const auto neuron_class = ClassOfContractNumber(number);
    if (!neuron_class) {
      return ErrorWithReason(absl::StatusCode::kDataLoss, "TENSOR_FILE_DAMAGED",
                             "a stored neuron set holds a class that does not exist");
    }
    columns.classes.push_back(*neuron_class);
  }
  VS_ASSIGN_OR_RETURN(columns.angles, file.Doubles(ColumnName(columns.layer, "angle"), size));
  return absl::OkStatus();
}

}  // namespace

int32_t ContractNumber(NeuronClass neuron_class) { return static_cast<int32_t>(neuron_class) + 1; }

std::optional<NeuronClass> ClassOfContractNumber(int32_t number) {
  if (number < 1 || number > analysis::kNumNeuronClasses) return std::nullopt;
  return static_cast<NeuronClass>(number - 1);
}

std::vector<NeuronScore> TopNeurons(std::span<const NeuronColumns> columns, int64_t top_k) {
  std::vector<NeuronScore> members;
  for (const NeuronColumns& layer : columns) {
    for (size_t i = 0; i < layer.scores.size(); ++i) {
      NeuronScore neuron;
      neuron.layer = layer.layer;
      neuron.index = static_cast<int32_t>(i);
      neuron.score = layer.scores[i];
      if (!layer.classes.empty()) {
        if (layer.classes[i] == NeuronClass::kNone) continue;
        neuron.neuron_class = layer.classes[i];
        neuron.angle = layer.angles[i];
      }
      members.push_back(neuron);
    }
  }
  const auto before = [](const NeuronScore& a, const NeuronScore& b) {
    return std::make_tuple(-std::abs(a.score), a.layer, a.index) <
           std::make_tuple(-std::abs(b.score), b.layer, b.index);
  };
  const auto count =
      static_cast<std::ptrdiff_t>(std::min<int64_t>(top_k, static_cast<int64_t>(members.size())));
  std::partial_sort(members.begin(), members.begin() + count, members.end(), before);
  members.resize(static_cast<size_t>(count));
  return members;
}

std::vector<NeuronScore> Members(std::span<const NeuronColumns> columns, int64_t top_k) {
  const bool classed = std::any_of(columns.begin(), columns.end(),
                                   [](const NeuronColumns& each) { return !each.classes.empty(); });
  return TopNeurons(columns, classed ? std::numeric_limits<int64_t>::max() : top_k);
}

std::vector<NeuronSetLayer> SummariseLayers(std::span<const NeuronColumns> columns,
                                            std::span<const NeuronScore> top) {
  std::vector<NeuronSetLayer> layers;
  for (const NeuronColumns& column : columns) {
    NeuronSetLayer layer;
    layer.layer = column.layer;
    layer.num_neurons = static_cast<int64_t>(column.scores.size());
    layer.num_members = std::count_if(top.begin(), top.end(), [&column](const NeuronScore& neuron) {
      return neuron.layer == column.layer;
    });
    for (const double score : column.scores) layer.score_sum += score;
    if (!column.scores.empty()) {
      const auto [low, high] = std::minmax_element(column.scores.begin(), column.scores.end());
      layer.score_min = *low;
      layer.score_max = *high;
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

std::string EncodeColumns(std::span<const NeuronColumns> columns) {
  std::vector<NamedTensor> tensors;
  for (const NeuronColumns& layer : columns) {
    tensors.push_back(Column(ColumnName(layer.layer, "score"), layer.scores));
    if (!layer.classes.empty()) {
      std::vector<int32_t> numbers;
      for (const NeuronClass neuron_class : layer.classes) {
        numbers.push_back(ContractNumber(neuron_class));
      }
      tensors.push_back(Column(ColumnName(layer.layer, "class"), numbers));
      tensors.push_back(Column(ColumnName(layer.layer, "angle"), layer.angles));
    }
    if (!layer.mean_expressing.empty()) {
      tensors.push_back(Column(ColumnName(layer.layer, "mean_expressing"), layer.mean_expressing));
      tensors.push_back(
          Column(ColumnName(layer.layer, "mean_non_expressing"), layer.mean_non_expressing));
    }
  }
  return WriteTensorFile(tensors);
}

store::Resource MakeNeuronSetResource(const StoredNeuronSet& set, const store::StoredBlob& blob) {
  json layers = json::array();
  for (const NeuronSetLayer& layer : set.layers) layers.push_back(LayerToJson(layer));
  store::Resource resource;
  resource.kind = store::ResourceKind::kNeuronSet;
  resource.format_version = kNeuronSetFormatVersion;
  const std::string provenance = ProvenanceToJson(set.provenance);
  resource.digest = Sha256Hex(absl::StrCat(
      "valuescope neuron set 2\n", set.model_digest, "\n", set.method, "\n", set.top_k, "\n",
      blob.digest, "\n", DumpJson(layers), "\n", DumpJson(set.warnings), "\n", provenance, "\n"));
  resource.id = IdOfDigest(resource.digest);
  resource.display_name = set.display_name;
  resource.media_type = kSafetensorsMediaType;
  resource.metadata = DumpJson({{"format_version", kNeuronSetFormatVersion},
                                {"model", set.model},
                                {"model_digest", set.model_digest},
                                {"method", set.method},
                                {"top_k", set.top_k},
                                {"layers", std::move(layers)},
                                {"warnings", set.warnings},
                                {"provenance", provenance}});
  resource.blob_digest = blob.digest;
  resource.blob_size = blob.size;
  return resource;
}

absl::StatusOr<StoredNeuronSet> DescribeNeuronSet(const store::Resource& resource) {
  StoredNeuronSet set;
  set.display_name = resource.display_name;
  std::string provenance;
  VS_RETURN_IF_ERROR(ReadJson(resource.metadata, kNeuronSetFormatVersion, [&](const json& value) {
    set.model = value.at("model").get<std::string>();
    set.model_digest = value.at("model_digest").get<std::string>();
    set.method = value.at("method").get<std::string>();
    set.top_k = value.at("top_k").get<int64_t>();
    for (const json& layer : value.at("layers")) set.layers.push_back(LayerFromJson(layer));
    set.warnings = value.value("warnings", set.warnings);  // sets of before have none
    provenance = value.at("provenance").get<std::string>();
  }));
  VS_ASSIGN_OR_RETURN(set.provenance, ProvenanceFromJson(provenance));
  return set;
}

absl::StatusOr<std::vector<NeuronColumns>> ReadColumns(store::BlobStore& blobs,
                                                       const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(const StoredNeuronSet set, DescribeNeuronSet(resource));
  VS_ASSIGN_OR_RETURN(std::string bytes,
                      store::ReadBlob(blobs, resource.blob_digest, kMaxColumnsFile));
  VS_ASSIGN_OR_RETURN(const TensorFile file, TensorFile::Parse(std::move(bytes)));
  std::vector<NeuronColumns> columns;
  for (const NeuronSetLayer& layer : set.layers) {
    NeuronColumns column;
    column.layer = layer.layer;
    VS_ASSIGN_OR_RETURN(column.scores,
                        file.Doubles(ColumnName(layer.layer, "score"), layer.num_neurons));
    if (!layer.classes.empty()) VS_RETURN_IF_ERROR(ReadClasses(file, column));
    columns.push_back(std::move(column));
  }
  return columns;
}

}  // namespace valuescope::studies
