#include "services/intervention_sizes.h"

#include <initializer_list>
#include <optional>
#include <set>
#include <string>

#include "base/status_macros.h"
#include "model/site.h"

namespace valuescope::services {
namespace {

int64_t FloatBytes(std::initializer_list<int64_t> extents) {
  int64_t bytes = sizeof(float);
  for (const int64_t extent : extents) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return INT64_MAX;
  }
  return bytes;
}

void AddInline(const InterventionContext& context, const v1::Tensor& tensor, DeclaredSize& size) {
  const auto data = static_cast<int64_t>(tensor.data().size());
  const bool halves =
      tensor.dtype() == v1::DATA_TYPE_FLOAT16 || tensor.dtype() == v1::DATA_TYPE_BFLOAT16;
  const int64_t numbers = halves ? 2 * data : data;  // bytes as float32
  size.AddHost(std::max(numbers, FloatBytes({context.num_layers(), context.width()})));
  size.Converts(data + 2 * numbers);  // the bytes, their numbers to look at, those to keep
}

void AddNamed(const InterventionContext& context, const std::string& name,
              std::optional<int> source_layer, DeclaredSize& size) {
  context.names.NeedRows({name, context.intervention.site},
                         SourceLayers(context.intervention, source_layer));
  size.AddHost(FloatBytes({context.num_layers(), context.width()}));
}

// Of an operation with a vector or a tensor for each layer.
template <typename Proto>
void AddSource(const InterventionContext& context, const Proto& proto, DeclaredSize& size) {
  if (proto.source_case() == Proto::kTensor) AddInline(context, proto.tensor(), size);
  if (proto.source_case() == Proto::kVector) {
    AddNamed(context, proto.vector(), SourceLayer(proto), size);
  }
}

int64_t DirectionsOf(const v1::ProjectOut& proto) {
  if (!proto.has_tensor()) return proto.vectors_size();
  return proto.tensor().shape_size() == 3 ? std::max<int64_t>(1, proto.tensor().shape(1)) : 1;
}

void AddProjectOut(const InterventionContext& context, const v1::ProjectOut& proto,
                   DeclaredSize& size) {
  // What cannot be right is refused where it is read.
  const int64_t directions = std::min<int64_t>(DirectionsOf(proto), engine::kMostDirections);
  if (proto.has_tensor()) AddInline(context, proto.tensor(), size);
  for (int64_t i = 0; i < directions && !proto.has_tensor(); ++i) {
    AddNamed(context, proto.vectors(static_cast<int>(i)), SourceLayer(proto), size);
  }
  const int64_t bytes = FloatBytes({context.num_layers(), directions, context.width()});
  size.AddHost(bytes);  // the basis beside the directions
  if (!proto.has_strength() || proto.strength() != 0) size.AddRows(bytes);
}

// How many of the chosen layers own a neuron.
template <typename Proto>
absl::StatusOr<int64_t> LayersWithNeurons(const InterventionContext& context, const Proto& proto,
                                          DeclaredSize& size) {
  std::set<int> owners;
  for (const v1::NeuronId& neuron : proto.neurons()) owners.insert(neuron.layer());
  constexpr int64_t kListedBytes = 64;  // in a set of a map, then as an index
  size.AddHost(kListedBytes * proto.neurons_size());
  if (!proto.neuron_set().empty() && proto.neurons_size() == 0 &&
      context.intervention.site == model::Site::kMlpNeurons &&
      v1::NeuronClass_IsValid(proto.class_())) {
    VS_ASSIGN_OR_RETURN(const NeuronCounts* counts,
                        context.names.NeedNeurons({proto.neuron_set(), proto.class_()},
                                                  context.Field("neuron_set")));
    for (const auto& [layer, count] : counts->by_layer) {
      if (count > 0) owners.insert(layer);
    }
  }
  return std::count_if(context.intervention.layers.begin(), context.intervention.layers.end(),
                       [&](int layer) { return owners.contains(layer); });
}

}  // namespace

absl::Status AddDeclared(const InterventionContext& context, const v1::Intervention& proto,
                         DeclaredSize& size) {
  constexpr int64_t kPositionBytes = 64;
  size.AddHost(kPositionBytes * proto.tokens().positions_size());
  const int64_t row = FloatBytes({context.width()});
  const int64_t rows = FloatBytes({context.num_layers(), context.width()});
  switch (proto.operation_case()) {
    case v1::Intervention::kAdd:
      AddSource(context, proto.add(), size);
      if (!proto.add().has_coefficient() || proto.add().coefficient() != 0) size.AddRows(rows);
      if (proto.add().has_coefficient()) size.AddHost(rows);  // the product beside the vector
      return absl::OkStatus();
    case v1::Intervention::kProjectOut:
      AddProjectOut(context, proto.project_out(), size);
      return absl::OkStatus();
    case v1::Intervention::kClamp:
      AddSource(context, proto.clamp(), size);
      size.AddHost(rows);  // the basis
      size.AddRows(rows);
      return absl::OkStatus();
    case v1::Intervention::kReplace:
      AddInline(context, proto.replace().tensor(), size);
      size.AddHost(rows);  // the factors, which are the same at every position
      size.AddRows(2 * rows);
      return absl::OkStatus();
    case v1::Intervention::kScaleNeurons: {
      VS_ASSIGN_OR_RETURN(const int64_t layers,
                          LayersWithNeurons(context, proto.scale_neurons(), size));
      size.AddHost(2 * layers * row);
      if (proto.scale_neurons().factor() != 1) size.AddRows(2 * layers * row);
      return absl::OkStatus();
    }
    case v1::Intervention::kAblateNeurons: {
      VS_ASSIGN_OR_RETURN(const int64_t layers,
                          LayersWithNeurons(context, proto.ablate_neurons(), size));
      size.AddHost(2 * layers * row);
      size.AddRows(2 * layers * row);
      if (!proto.ablate_neurons().reference().empty()) {
        AddNamed(context, proto.ablate_neurons().reference(), std::nullopt, size);
        size.AddHost(rows);  // the layers without neurons drop out in a copy
      }
      return absl::OkStatus();
    }
    case v1::Intervention::OPERATION_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

}  // namespace valuescope::services
