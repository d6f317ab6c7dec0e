#include "studies/stored_neuron_set.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "studies/contract_enums.h"
#include "studies/named_content.h"
#include "studies/records_of_version_1.h"
#include "studies/resource_naming.h"
#include "studies/stored_record.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {
namespace {

using analysis::NeuronClass;

constexpr int64_t kMaxColumnsFile = int64_t{1} << 31;
constexpr char kActivityThreshold[] = "activity_threshold";

std::string ColumnName(int layer, absl::string_view column) {
  return absl::StrCat("layer.", layer, ".", column);
}

// A neuron among the columns of a set.
struct Place {
  size_t column = 0;
  size_t index = 0;
};

// Where the method does not choose members, any neuron may be one.
bool MayBeMember(const NeuronColumns& layer, size_t index) {
  if (!layer.classes.empty()) return layer.classes[index] != NeuronClass::kNone;
  return layer.members.empty() || layer.members[index] != 0;
}

bool HasClass(const NeuronColumns& layer, size_t index, v1::NeuronClass neuron_class) {
  return neuron_class == v1::NEURON_CLASS_UNSPECIFIED ||
         (!layer.classes.empty() && ClassToProto(layer.classes[index]) == neuron_class);
}

std::vector<Place> Members(std::span<const NeuronColumns> columns) {
  std::vector<Place> members;
  for (size_t column = 0; column < columns.size(); ++column) {
    for (size_t index = 0; index < columns[column].scores.size(); ++index) {
      if (!MayBeMember(columns[column], index)) continue;
      members.push_back({.column = column, .index = index});
    }
  }
  return members;
}

std::vector<Place> TopMembers(std::span<const NeuronColumns> columns, int64_t top_k) {
  std::vector<Place> members = Members(columns);
  const auto rank = [&columns](const Place& place) {
    return std::make_tuple(-std::abs(columns[place.column].scores[place.index]), place.column,
                           place.index);
  };
  const auto before = [&rank](const Place& a, const Place& b) { return rank(a) < rank(b); };
  const auto count =
      static_cast<std::ptrdiff_t>(std::min<int64_t>(top_k, static_cast<int64_t>(members.size())));
  std::partial_sort(members.begin(), members.begin() + count, members.end(), before);
  members.resize(static_cast<size_t>(count));
  return members;
}

// Columns of a set that assigns classes, read back.
absl::Status ReadClasses(const TensorFile& file, NeuronColumns& columns) {
  const auto size = static_cast<int64_t>(columns.scores.size());
  VS_ASSIGN_OR_RETURN(const std::vector<int32_t> numbers,
                      file.Int32s(ColumnName(columns.layer, "class"), size));
  for (const int32_t number : numbers) {
    const auto neuron_class = ClassOf(number);
    if (!neuron_class) {
      return ErrorWithReason(absl::StatusCode::kDataLoss, "TENSOR_FILE_DAMAGED",
                             "a stored neuron set holds a class that does not exist");
    }
    columns.classes.push_back(*neuron_class);
  }
  VS_ASSIGN_OR_RETURN(columns.angles, file.Doubles(ColumnName(columns.layer, "angle"), size));
  return absl::OkStatus();
}

absl::StatusOr<TensorFile> OpenColumns(store::BlobStore& blobs, const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(std::string bytes,
                      store::ReadBlob(blobs, resource.blob_digest, kMaxColumnsFile));
  return TensorFile::Parse(std::move(bytes));
}

}  // namespace

google::protobuf::RepeatedPtrField<v1::NeuronScore> TopNeurons(
    std::span<const NeuronColumns> columns, int64_t top_k) {
  google::protobuf::RepeatedPtrField<v1::NeuronScore> top;
  for (const Place& place : TopMembers(columns, top_k)) {
    const NeuronColumns& layer = columns[place.column];
    v1::NeuronScore& neuron = *top.Add();
    neuron.set_layer(layer.layer);
    neuron.set_index(static_cast<int32_t>(place.index));
    neuron.set_score(layer.scores[place.index]);
    if (layer.classes.empty()) continue;
    neuron.set_class_(ClassToProto(layer.classes[place.index]));
    neuron.set_angle(layer.angles[place.index]);
  }
  return top;
}

NeuronsByLayer MembersByLayer(std::span<const NeuronColumns> columns, int64_t top_k,
                              v1::NeuronClass neuron_class) {
  const bool chosen_by_method = std::any_of(
      columns.begin(), columns.end(),
      [](const NeuronColumns& each) { return !each.classes.empty() || !each.members.empty(); });
  NeuronsByLayer by_layer;
  for (const Place& place : chosen_by_method ? Members(columns) : TopMembers(columns, top_k)) {
    const NeuronColumns& layer = columns[place.column];
    if (!HasClass(layer, place.index, neuron_class)) continue;
    by_layer[layer.layer].push_back(static_cast<int64_t>(place.index));
  }
  for (auto& [layer, indices] : by_layer) std::sort(indices.begin(), indices.end());
  return by_layer;
}

NeuronsByLayer TopOfEachLayer(std::span<const NeuronColumns> columns, int64_t count,
                              v1::NeuronClass neuron_class) {
  NeuronsByLayer by_layer;
  for (const NeuronColumns& layer : columns) {
    std::vector<int64_t>& indices = by_layer[layer.layer];
    for (size_t index = 0; index < layer.scores.size(); ++index) {
      if (HasClass(layer, index, neuron_class)) indices.push_back(static_cast<int64_t>(index));
    }
    const auto rank = [&layer](int64_t index) {
      return std::make_tuple(-std::abs(layer.scores[static_cast<size_t>(index)]), index);
    };
    const auto kept = std::min<int64_t>(count, static_cast<int64_t>(indices.size()));
    std::partial_sort(indices.begin(), indices.begin() + kept, indices.end(),
                      [&rank](int64_t a, int64_t b) { return rank(a) < rank(b); });
    indices.resize(static_cast<size_t>(kept));
    std::sort(indices.begin(), indices.end());
  }
  return by_layer;
}

int64_t CountNeurons(const v1::NeuronSet& set) {
  int64_t count = 0;
  for (const v1::NeuronSetLayer& layer : set.layers()) count += layer.num_neurons();
  return count;
}

bool AssignsClasses(const v1::NeuronSet& set) {
  return std::any_of(set.layers().begin(), set.layers().end(),
                     [](const v1::NeuronSetLayer& layer) { return layer.classes_size() > 0; });
}

google::protobuf::RepeatedPtrField<v1::NeuronSetLayer> SummariseLayers(
    std::span<const NeuronColumns> columns,
    const google::protobuf::RepeatedPtrField<v1::NeuronScore>& top) {
  google::protobuf::RepeatedPtrField<v1::NeuronSetLayer> layers;
  for (const NeuronColumns& column : columns) {
    v1::NeuronSetLayer& layer = *layers.Add();
    layer.set_layer(column.layer);
    layer.set_num_neurons(static_cast<int64_t>(column.scores.size()));
    layer.set_num_members(column.members.empty()
                              ? std::count_if(top.begin(), top.end(),
                                              [&](const v1::NeuronScore& neuron) {
                                                return neuron.layer() == column.layer;
                                              })
                              : std::count(column.members.begin(), column.members.end(), 1));
    if (column.completeness_gap) layer.set_completeness_gap(*column.completeness_gap);
    if (column.mean_absolute_gap) layer.set_mean_absolute_gap(*column.mean_absolute_gap);
    layer.set_score_sum(std::accumulate(column.scores.begin(), column.scores.end(), 0.0));
    if (column.scores.empty()) continue;
    const auto [low, high] = std::minmax_element(column.scores.begin(), column.scores.end());
    layer.set_score_min(*low);
    layer.set_score_max(*high);
  }
  return layers;
}

std::string EncodeColumns(std::span<const NeuronColumns> columns,
                          std::optional<double> activity_threshold) {
  std::vector<NamedTensor> tensors;
  for (const NeuronColumns& layer : columns) {
    tensors.push_back(Column(ColumnName(layer.layer, "score"), layer.scores));
    if (!layer.classes.empty()) {
      std::vector<int32_t> numbers;
      for (const NeuronClass neuron_class : layer.classes) {
        numbers.push_back(ClassToProto(neuron_class));
      }
      tensors.push_back(Column(ColumnName(layer.layer, "class"), numbers));
      tensors.push_back(Column(ColumnName(layer.layer, "angle"), layer.angles));
    }
    if (!layer.mean_expressing.empty()) {
      tensors.push_back(Column(ColumnName(layer.layer, "mean_expressing"), layer.mean_expressing));
      tensors.push_back(
          Column(ColumnName(layer.layer, "mean_non_expressing"), layer.mean_non_expressing));
    }
    if (!layer.members.empty()) {
      tensors.push_back(Column(ColumnName(layer.layer, "member"), layer.members));
      tensors.push_back(Column(ColumnName(layer.layer, "values"), layer.values));
    }
  }
  if (activity_threshold) {
    tensors.push_back(Column(kActivityThreshold, std::span<const double>(&*activity_threshold, 1)));
  }
  return WriteTensorFile(tensors);
}

absl::StatusOr<store::Resource> MakeNeuronSetResource(const v1::NeuronSet& set,
                                                      const store::StoredBlob& blob) {
  store::Resource resource;
  resource.kind = store::ResourceKind::kNeuronSet;
  resource.digest = Sha256Hex(
      absl::StrCat("valuescope neuron set 2\n", set.model_digest(), "\n", set.method(), "\n",
                   set.top_k(), "\n", blob.digest, "\n", NamedContent(set.layers()), "\n",
                   NamedContent(set.warnings()), "\n", NamedContent(set.provenance()), "\n"));
  resource.id = IdOfDigest(resource.digest);
  resource.display_name = set.display_name();
  resource.media_type = kSafetensorsMediaType;
  resource.blob_digest = blob.digest;
  resource.blob_size = blob.size;
  v1::NeuronSet record = set;
  record.clear_display_name();
  VS_RETURN_IF_ERROR(PutRecord(record, resource));
  return resource;
}

absl::StatusOr<v1::NeuronSet> DescribeNeuronSet(const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(v1::NeuronSet set, RecordOf<v1::NeuronSet>(resource, NeuronSetOfVersion1));
  if (set.model_digest().empty() || set.method().empty()) {
    return DamagedRecord("a neuron set without model or method");
  }
  return set;
}

absl::StatusOr<std::vector<NeuronColumns>> ReadColumns(store::BlobStore& blobs,
                                                       const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(const v1::NeuronSet set, DescribeNeuronSet(resource));
  VS_ASSIGN_OR_RETURN(const TensorFile file, OpenColumns(blobs, resource));
  std::vector<NeuronColumns> columns;
  for (const v1::NeuronSetLayer& layer : set.layers()) {
    NeuronColumns column;
    column.layer = layer.layer();
    const auto name = [&layer](absl::string_view of) { return ColumnName(layer.layer(), of); };
    VS_ASSIGN_OR_RETURN(column.scores, file.Doubles(name("score"), layer.num_neurons()));
    if (layer.classes_size() > 0) VS_RETURN_IF_ERROR(ReadClasses(file, column));
    if (set.method() == kSelectivityMethod) {
      VS_ASSIGN_OR_RETURN(column.members, file.Int32s(name("member"), layer.num_neurons()));
      VS_ASSIGN_OR_RETURN(column.values, file.Int64s(name("values"), layer.num_neurons()));
    }
    columns.push_back(std::move(column));
  }
  return columns;
}

absl::StatusOr<std::vector<double>> ReadMeanExpressing(store::BlobStore& blobs,
                                                       const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(const v1::NeuronSet set, DescribeNeuronSet(resource));
  VS_ASSIGN_OR_RETURN(const TensorFile file, OpenColumns(blobs, resource));
  std::vector<double> all;
  all.reserve(static_cast<size_t>(CountNeurons(set)));
  for (const v1::NeuronSetLayer& layer : set.layers()) {
    VS_ASSIGN_OR_RETURN(
        const std::vector<double> means,
        file.Doubles(ColumnName(layer.layer(), "mean_expressing"), layer.num_neurons()));
    all.insert(all.end(), means.begin(), means.end());
  }
  return all;
}

absl::StatusOr<double> ReadActivityThreshold(store::BlobStore& blobs,
                                             const store::Resource& resource) {
  VS_ASSIGN_OR_RETURN(const TensorFile file, OpenColumns(blobs, resource));
  VS_ASSIGN_OR_RETURN(const std::vector<double> threshold, file.Doubles(kActivityThreshold, 1));
  return threshold.front();
}

}  // namespace valuescope::studies
