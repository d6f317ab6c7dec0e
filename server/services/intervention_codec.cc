#include "services/intervention_codec.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/engine.h"
#include "model/site.h"
#include "services/named_resources.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

std::string At(absl::string_view field, int index) { return absl::StrCat(field, "[", index, "]"); }

// A vector's rows for some layers, of which all interventions that take them have one copy.
using RowsKey = std::tuple<NamedVector, std::optional<int>, std::vector<int>>;

// What the conversion of one operation needs to know of its surroundings.
struct Context {
  const std::string& field;  // of the operation: "interventions[2].add"
  const engine::Intervention& intervention;
  const InterventionScope& scope;
  NamedResources& names;
  std::map<RowsKey, engine::SharedFloats>& rows;  // made so far

  std::string Field(absl::string_view name) const { return absl::StrCat(field, ".", name); }
  int64_t num_layers() const {
    return std::max<int64_t>(1, static_cast<int64_t>(intervention.layers.size()));
  }
  int64_t width() const { return model::WidthOf(intervention.site, scope.model.architecture); }
};

engine::SharedFloats Shared(std::vector<float> numbers) {
  return std::make_shared<const std::vector<float>>(std::move(numbers));
}

// --- Tensors and vectors
// --------------------------------------------------------------------------

// The middle axis that a tensor of one operation may have beside layers and width.
struct MiddleAxis {
  absl::string_view name;  // "directions"
  int64_t fewest = 1;
  int64_t most = 0;  // 0: no such axis
};

struct InlineTensor {
  int64_t middle = 1;
  bool has_middle = false;
  std::vector<float> numbers;  // [num_layers, middle, width]
};

// [width] for every layer, [num_layers, width], or [num_layers, middle, width].
absl::StatusOr<InlineTensor> InlineFromProto(const Context& context, const v1::Tensor& tensor,
                                             const MiddleAxis& middle = {}) {
  const std::string field = context.Field("tensor");
  const int64_t layers = context.num_layers(), width = context.width();
  const auto& shape = tensor.shape();
  const bool one = shape.size() == 1 && shape[0] == width;
  const bool each_layer = shape.size() == 2 && shape[0] == layers && shape[1] == width;
  const bool with_middle = shape.size() == 3 && shape[0] == layers && shape[2] == width &&
                           shape[1] >= middle.fewest && shape[1] <= middle.most;
  if (!one && !each_layer && !with_middle) {
    std::string allowed = absl::StrCat("must be [", width, "] or [", layers, ", ", width,
                                       "] (number of chosen layers, width of the site)");
    if (middle.most > 0) {
      const std::string count = middle.fewest == middle.most
                                    ? absl::StrCat(middle.most)
                                    : absl::StrCat(middle.fewest, " to ", middle.most);
      absl::StrAppend(&allowed, " or [", layers, ", ", std::string(middle.name), ", ", width,
                      "] with ", count, " ", std::string(middle.name));
    }
    return InvalidField(absl::StrCat(field, ".shape"), allowed);
  }
  VS_ASSIGN_OR_RETURN(const HostTensor host, TensorFromProto(field, tensor));
  if (host.dtype == DType::kInt32 || host.dtype == DType::kInt64) {
    return InvalidField(absl::StrCat(field, ".dtype"), "must be a floating-point type");
  }
  InlineTensor result{
      .middle = with_middle ? shape[1] : 1, .has_middle = with_middle, .numbers = {}};
  VS_ASSIGN_OR_RETURN(result.numbers, ToFloat32(host));
  if (!one) return result;
  std::vector<float> repeated;
  repeated.reserve(static_cast<size_t>(layers * width));
  for (int64_t layer = 0; layer < layers; ++layer) {
    repeated.insert(repeated.end(), result.numbers.begin(), result.numbers.end());
  }
  result.numbers = std::move(repeated);
  return result;
}

// The layers whose rows of a named vector the intervention takes. At a site without layers a vector
// has one row, kept under 0.
std::vector<int> SourceLayers(const engine::Intervention& intervention,
                              std::optional<int> source_layer) {
  if (source_layer) return {*source_layer};
  return intervention.layers.empty() ? std::vector<int>{0} : intervention.layers;
}

// The row of the vector `name` that the chosen layer at `index` takes, [width].
absl::StatusOr<std::span<const float>> NamedRow(const Context& context, const std::string& field,
                                                const std::string& name, int64_t index,
                                                std::optional<int> source_layer) {
  const std::vector<int>& chosen = context.intervention.layers;
  const int layer = chosen.empty() ? 0 : chosen[static_cast<size_t>(index)];
  return context.names.Row({name, context.intervention.site}, source_layer.value_or(layer), field,
                           source_layer ? context.Field("source_layer") : field);
}

// The rows of the vector `name` that the chosen layers take, [num_layers, width].
absl::StatusOr<engine::SharedFloats> NamedRows(const Context& context, const std::string& field,
                                               const std::string& name,
                                               std::optional<int> source_layer = std::nullopt) {
  const RowsKey key{{name, context.intervention.site}, source_layer, context.intervention.layers};
  if (const auto made = context.rows.find(key); made != context.rows.end()) return made->second;
  std::vector<float> rows;
  rows.reserve(static_cast<size_t>(context.num_layers() * context.width()));
  for (int64_t index = 0; index < context.num_layers(); ++index) {
    VS_ASSIGN_OR_RETURN(const std::span<const float> row,
                        NamedRow(context, field, name, index, source_layer));
    rows.insert(rows.end(), row.begin(), row.end());
  }
  return context.rows.emplace(key, Shared(std::move(rows))).first->second;
}

template <typename Proto>
std::optional<int> SourceLayer(const Proto& proto) {
  return proto.has_source_layer() ? std::optional<int>(proto.source_layer()) : std::nullopt;
}

// The rows of an operation with a vector or a tensor, [num_layers, width].
template <typename Proto>
absl::StatusOr<engine::SharedFloats> RowsFromProto(const Context& context, const Proto& proto) {
  switch (proto.source_case()) {
    case Proto::kTensor: {
      if (proto.has_source_layer()) {
        return InvalidField(context.Field("source_layer"), "goes only with a named vector");
      }
      VS_ASSIGN_OR_RETURN(InlineTensor inline_rows, InlineFromProto(context, proto.tensor()));
      return Shared(std::move(inline_rows.numbers));
    }
    case Proto::kVector:
      return NamedRows(context, context.Field("vector"), proto.vector(), SourceLayer(proto));
    default:
      return InvalidField(context.field, "needs a vector or a tensor");
  }
}

// --- Neurons
// --------------------------------------------------------------------------------------

using NeuronsByLayer = std::map<int, engine::NeuronIndices>;

absl::StatusOr<NeuronsByLayer> ListedNeurons(
    const Context& context, const google::protobuf::RepeatedPtrField<v1::NeuronId>& listed) {
  const model::Architecture& architecture = context.scope.model.architecture;
  const int64_t count = context.intervention.site == model::Site::kAttentionHeads
                            ? architecture.num_heads
                            : architecture.intermediate;
  std::map<int, std::set<int64_t>> by_layer;
  for (int i = 0; i < listed.size(); ++i) {
    const std::string field = At(context.Field("neurons"), i);
    const v1::NeuronId& neuron = listed[i];
    if (neuron.layer() < 0 || neuron.layer() >= architecture.num_layers) {
      return OutOfRange(absl::StrCat(field, ".layer"), neuron.layer(), 0,
                        architecture.num_layers - 1);
    }
    if (neuron.index() < 0 || neuron.index() >= count) {
      return OutOfRange(absl::StrCat(field, ".index"), neuron.index(), 0,
                        static_cast<double>(count - 1));
    }
    if (!by_layer[neuron.layer()].insert(neuron.index()).second) {
      return InvalidField(field, "is there twice");
    }
  }
  NeuronsByLayer result;
  for (const auto& [layer, indices] : by_layer) {
    result[layer] = std::vector<int64_t>(indices.begin(), indices.end());
  }
  return result;
}

template <typename Proto>
absl::StatusOr<NeuronsByLayer> NeuronsFromProto(const Context& context, const Proto& proto) {
  if (proto.neurons_size() > 0 && !proto.neuron_set().empty()) {
    return InvalidField(context.Field("neuron_set"), "must be unset where neurons are listed");
  }
  if (proto.neuron_set().empty()) {
    if (proto.class_() != v1::NEURON_CLASS_UNSPECIFIED) {
      return InvalidField(context.Field("class"), "goes only with a neuron_set");
    }
    if (proto.neurons_size() == 0) {
      return InvalidField(context.field, "needs neurons or a neuron_set");
    }
    return ListedNeurons(context, proto.neurons());
  }
  const std::string field = context.Field("neuron_set");
  if (context.intervention.site != model::Site::kMlpNeurons) {
    return InvalidField(field, "holds neurons of MLP_NEURONS; at ATTENTION_HEADS list the heads");
  }
  if (!v1::NeuronClass_IsValid(proto.class_())) {
    return InvalidField(context.Field("class"), "must be a NEURON_CLASS_... of the contract");
  }
  VS_ASSIGN_OR_RETURN(const ResolvedNeurons* resolved,
                      context.names.Neurons({proto.neuron_set(), proto.class_()}, field));
  return resolved->by_layer;
}

// Narrows the intervention to the chosen layers that own a neuron.
template <typename Proto>
absl::StatusOr<engine::ChosenNeurons> ChooseNeurons(const Context& context, const Proto& proto,
                                                    engine::Intervention& intervention) {
  VS_ASSIGN_OR_RETURN(NeuronsByLayer by_layer, NeuronsFromProto(context, proto));
  std::vector<int> layers;
  engine::ChosenNeurons neurons;
  for (const int layer : intervention.layers) {
    const auto owned = by_layer.find(layer);
    if (owned == by_layer.end()) continue;
    layers.push_back(layer);
    neurons.push_back(owned->second);
  }
  if (layers.empty()) {
    return InvalidField(
        context.Field(proto.neuron_set().empty() ? "neurons" : "neuron_set"),
        "has no neuron in the chosen layers, so the intervention would touch nothing",
        "INTERVENTION_TOUCHES_NOTHING");
  }
  intervention.layers = std::move(layers);
  return neurons;
}

// --- Operations
// -----------------------------------------------------------------------------------

absl::StatusOr<engine::Operation> AddFromProto(const Context& context, const v1::AddVector& proto) {
  engine::AddVector add{.rows = {},
                        .coefficient = proto.has_coefficient() ? proto.coefficient() : 1.0f};
  VS_ASSIGN_OR_RETURN(add.rows, RowsFromProto(context, proto));
  return add;
}

// The rows of several vectors, [num_layers, vectors, width].
absl::StatusOr<std::vector<float>> NamedDirections(const Context& context,
                                                   const v1::ProjectOut& proto) {
  std::vector<float> directions;
  directions.reserve(
      static_cast<size_t>(context.num_layers() * proto.vectors_size() * context.width()));
  for (int64_t layer = 0; layer < context.num_layers(); ++layer) {
    for (int i = 0; i < proto.vectors_size(); ++i) {
      VS_ASSIGN_OR_RETURN(const std::span<const float> row,
                          NamedRow(context, At(context.Field("vectors"), i), proto.vectors(i),
                                   layer, SourceLayer(proto)));
      directions.insert(directions.end(), row.begin(), row.end());
    }
  }
  return directions;
}

absl::StatusOr<engine::Operation> ProjectOutFromProto(const Context& context,
                                                      const v1::ProjectOut& proto) {
  engine::ProjectOut project;
  if (proto.has_strength()) project.strength = proto.strength();
  if (!(project.strength >= 0 && project.strength <= 1)) {
    return OutOfRange(context.Field("strength"), project.strength, 0, 1);
  }
  if (proto.has_tensor() == (proto.vectors_size() > 0)) {
    return InvalidField(context.field, "needs either vectors or a tensor");
  }
  if (proto.vectors_size() > engine::kMostDirections) {
    return OutOfRange(context.Field("vectors"), proto.vectors_size(), 1, engine::kMostDirections);
  }
  if (proto.has_tensor()) {
    if (proto.has_source_layer()) {
      return InvalidField(context.Field("source_layer"), "goes only with named vectors");
    }
    VS_ASSIGN_OR_RETURN(
        InlineTensor directions,
        InlineFromProto(context, proto.tensor(),
                        {.name = "directions", .fewest = 1, .most = engine::kMostDirections}));
    project.num_directions = directions.middle;
    project.directions = Shared(std::move(directions.numbers));
    return project;
  }
  VS_ASSIGN_OR_RETURN(std::vector<float> directions, NamedDirections(context, proto));
  project.num_directions = proto.vectors_size();
  project.directions = Shared(std::move(directions));
  return project;
}

absl::StatusOr<engine::Operation> ClampFromProto(const Context& context, const v1::Clamp& proto) {
  if (!proto.has_value()) {
    return InvalidField(context.Field("value"), "is required: a finite number");
  }
  engine::Clamp clamp{.rows = {}, .value = proto.value()};
  VS_ASSIGN_OR_RETURN(clamp.rows, RowsFromProto(context, proto));
  return clamp;
}

absl::StatusOr<engine::Operation> ScaleFromProto(const Context& context,
                                                 const v1::ScaleNeurons& proto,
                                                 engine::Intervention& intervention) {
  if (!proto.has_factor()) {
    return InvalidField(context.Field("factor"), "is required: a finite number");
  }
  engine::ScaleNeurons scale{.neurons = {}, .factor = proto.factor()};
  VS_ASSIGN_OR_RETURN(scale.neurons, ChooseNeurons(context, proto, intervention));
  return scale;
}

absl::StatusOr<engine::Operation> AblateFromProto(const Context& context,
                                                  const v1::AblateNeurons& proto,
                                                  engine::Intervention& intervention) {
  const bool mean = proto.mode() == v1::ABLATION_MODE_MEAN;
  if (!v1::AblationMode_IsValid(proto.mode())) {
    return InvalidField(context.Field("mode"), "must be ZERO or MEAN (ABLATION_MODE_...)");
  }
  if (mean == proto.reference().empty()) {
    return InvalidField(context.Field("reference"),
                        mean ? "is required with MEAN: vectors/ID of the same site"
                             : "goes only with ABLATION_MODE_MEAN");
  }
  engine::AblateNeurons ablate;
  VS_ASSIGN_OR_RETURN(ablate.neurons, ChooseNeurons(context, proto, intervention));
  if (!mean) return ablate;
  VS_ASSIGN_OR_RETURN(ablate.means,
                      NamedRows(context, context.Field("reference"), proto.reference()));
  return ablate;
}

absl::StatusOr<engine::Operation> ReplaceFromProto(const Context& context,
                                                   const v1::Replace& proto) {
  if (!proto.has_tensor()) return InvalidField(context.Field("tensor"), "is required");
  const engine::TokenSelection& tokens = context.intervention.tokens;
  MiddleAxis positions;
  if (tokens.kind == engine::TokenKind::kPositions) {
    const auto count = static_cast<int64_t>(tokens.positions.size());
    positions = {.name = "positions", .fewest = count, .most = count};
  } else if (proto.tensor().shape_size() == 3) {
    return InvalidField(context.Field("tensor.shape"),
                        "has an axis of positions, so `tokens` must name these positions");
  }
  VS_ASSIGN_OR_RETURN(InlineTensor rows, InlineFromProto(context, proto.tensor(), positions));
  return engine::Replace{.rows = Shared(std::move(rows.numbers)), .each_position = rows.has_middle};
}

struct OperationInfo {
  absl::string_view name;
  bool on_neurons = false;
};

absl::StatusOr<OperationInfo> InfoOf(absl::string_view field, const v1::Intervention& proto) {
  switch (proto.operation_case()) {
    case v1::Intervention::kAdd:
      return OperationInfo{"add"};
    case v1::Intervention::kProjectOut:
      return OperationInfo{"project_out"};
    case v1::Intervention::kClamp:
      return OperationInfo{"clamp"};
    case v1::Intervention::kScaleNeurons:
      return OperationInfo{"scale_neurons", /*on_neurons=*/true};
    case v1::Intervention::kAblateNeurons:
      return OperationInfo{"ablate_neurons", /*on_neurons=*/true};
    case v1::Intervention::kReplace:
      return OperationInfo{"replace"};
    case v1::Intervention::OPERATION_NOT_SET:
      break;
  }
  return InvalidField(field,
                      "needs an operation: add, project_out, clamp, scale_neurons, ablate_neurons "
                      "or replace");
}

// May narrow the layers of `intervention`.
absl::StatusOr<engine::Operation> OperationFromProto(const Context& context,
                                                     const v1::Intervention& proto,
                                                     engine::Intervention& intervention) {
  switch (proto.operation_case()) {
    case v1::Intervention::kProjectOut:
      return ProjectOutFromProto(context, proto.project_out());
    case v1::Intervention::kClamp:
      return ClampFromProto(context, proto.clamp());
    case v1::Intervention::kScaleNeurons:
      return ScaleFromProto(context, proto.scale_neurons(), intervention);
    case v1::Intervention::kAblateNeurons:
      return AblateFromProto(context, proto.ablate_neurons(), intervention);
    case v1::Intervention::kReplace:
      return ReplaceFromProto(context, proto.replace());
    default:
      return AddFromProto(context, proto.add());
  }
}

// Everything of an intervention but its operation.
struct Outline {
  std::string field;  // of the operation: "interventions[2].add"
  engine::Intervention intervention;
};

absl::StatusOr<Outline> OutlineFromProto(const std::string& field, const v1::Intervention& proto,
                                         const model::Architecture& architecture) {
  VS_ASSIGN_OR_RETURN(const OperationInfo info, InfoOf(field, proto));
  Outline outline{.field = absl::StrCat(field, ".", info.name), .intervention = {}};
  engine::Intervention& intervention = outline.intervention;
  intervention.preserve_norm = proto.preserve_norm();
  VS_ASSIGN_OR_RETURN(
      intervention.site,
      SiteFromProto(absl::StrCat(field, ".site"), proto.site(),
                    info.on_neurons ? model::Site::kMlpNeurons : model::Site::kResidualPost));
  if (info.on_neurons && intervention.site != model::Site::kMlpNeurons &&
      intervention.site != model::Site::kAttentionHeads) {
    return InvalidField(absl::StrCat(field, ".site"),
                        "must be MLP_NEURONS or ATTENTION_HEADS for the neuron operations");
  }
  VS_ASSIGN_OR_RETURN(intervention.layers,
                      LayersFromProto(absl::StrCat(field, ".layers"),
                                      proto.has_layers() ? &proto.layers() : nullptr,
                                      {.site = intervention.site,
                                       .num_layers = architecture.num_layers,
                                       .all_by_default = info.on_neurons}));
  VS_ASSIGN_OR_RETURN(
      intervention.tokens,
      TokensFromProto(absl::StrCat(field, ".tokens"), proto.tokens(), architecture.max_positions,
                      engine::TokenKind::kFromLastPrompt));
  return outline;
}

// --- Sizes
// ----------------------------------------------------------------------------------------

// What interventions take, by what they declare, in bytes. Sums that are too large for an integer
// stay at the largest.
struct DeclaredSize {
  int64_t rows = 0;        // of the tables, each once
  int64_t host = 0;        // for as long as a request of the call lives, without what is named
  int64_t converting = 0;  // for the one that is converted now, at most

  void AddRows(int64_t bytes) { Add(rows, bytes); }
  void AddHost(int64_t bytes) { Add(host, bytes); }
  void Converts(int64_t bytes) { converting = std::max(converting, bytes); }
  int64_t OnHost(const NamedResources& names) const {
    int64_t total = names.bytes();
    Add(total, host);
    Add(total, converting);
    return total;
  }

 private:
  static void Add(int64_t& sum, int64_t bytes) {
    if (__builtin_add_overflow(sum, bytes, &sum)) sum = INT64_MAX;
  }
};

int64_t FloatBytes(std::initializer_list<int64_t> extents) {
  int64_t bytes = sizeof(float);
  for (const int64_t extent : extents) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return INT64_MAX;
  }
  return bytes;
}

void AddInline(const Context& context, const v1::Tensor& tensor, DeclaredSize& size) {
  const auto data = static_cast<int64_t>(tensor.data().size());
  const bool halves =
      tensor.dtype() == v1::DATA_TYPE_FLOAT16 || tensor.dtype() == v1::DATA_TYPE_BFLOAT16;
  const int64_t numbers = halves ? 2 * data : data;  // bytes as float32
  size.AddHost(std::max(numbers, FloatBytes({context.num_layers(), context.width()})));
  size.Converts(data + 2 * numbers);  // the bytes, their numbers to look at, those to keep
}

void AddNamed(const Context& context, const std::string& name, std::optional<int> source_layer,
              DeclaredSize& size) {
  context.names.NeedRows({name, context.intervention.site},
                         SourceLayers(context.intervention, source_layer));
  size.AddHost(FloatBytes({context.num_layers(), context.width()}));
}

// Of an operation with a vector or a tensor for each layer.
template <typename Proto>
void AddSource(const Context& context, const Proto& proto, DeclaredSize& size) {
  if (proto.source_case() == Proto::kTensor) AddInline(context, proto.tensor(), size);
  if (proto.source_case() == Proto::kVector) {
    AddNamed(context, proto.vector(), SourceLayer(proto), size);
  }
}

int64_t DirectionsOf(const v1::ProjectOut& proto) {
  if (!proto.has_tensor()) return proto.vectors_size();
  return proto.tensor().shape_size() == 3 ? std::max<int64_t>(1, proto.tensor().shape(1)) : 1;
}

void AddProjectOut(const Context& context, const v1::ProjectOut& proto, DeclaredSize& size) {
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
absl::StatusOr<int64_t> LayersWithNeurons(const Context& context, const Proto& proto,
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

absl::Status AddDeclared(const Context& context, const v1::Intervention& proto,
                         DeclaredSize& size) {
  constexpr int64_t kPositionBytes = 64;
  size.AddHost(kPositionBytes * proto.tokens().positions_size());
  const int64_t row = FloatBytes({context.width()});
  const int64_t rows = FloatBytes({context.num_layers(), context.width()});
  switch (proto.operation_case()) {
    case v1::Intervention::kAdd:
      AddSource(context, proto.add(), size);
      if (!proto.add().has_coefficient() || proto.add().coefficient() != 0) size.AddRows(rows);
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
      size.AddRows(2 * rows);
      return absl::OkStatus();
    case v1::Intervention::kScaleNeurons: {
      VS_ASSIGN_OR_RETURN(const int64_t layers,
                          LayersWithNeurons(context, proto.scale_neurons(), size));
      if (proto.scale_neurons().factor() != 1) size.AddRows(2 * layers * row);
      return absl::OkStatus();
    }
    case v1::Intervention::kAblateNeurons: {
      VS_ASSIGN_OR_RETURN(const int64_t layers,
                          LayersWithNeurons(context, proto.ablate_neurons(), size));
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

}  // namespace

absl::StatusOr<CallInterventions> InterventionsFromProto(
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const InterventionScope& scope, UsedResources& used) {
  if (interventions.size() > engine::kMostInterventions) {
    return OutOfRange("interventions", interventions.size(), 0, engine::kMostInterventions);
  }
  CallInterventions result;
  if (interventions.empty()) return result;
  std::vector<Outline> outlines;
  for (int i = 0; i < interventions.size(); ++i) {
    VS_ASSIGN_OR_RETURN(
        outlines.emplace_back(),
        OutlineFromProto(At("interventions", i), interventions[i], scope.model.architecture));
  }
  NamedResources names(scope.tenant, scope.model, scope.vectors, used);
  std::map<RowsKey, engine::SharedFloats> rows;
  const auto context_of = [&](const Outline& outline) {
    return Context{outline.field, outline.intervention, scope, names, rows};
  };
  DeclaredSize size;
  for (int i = 0; i < interventions.size(); ++i) {
    const Outline& outline = outlines[static_cast<size_t>(i)];
    VS_RETURN_IF_ERROR(AddDeclared(context_of(outline), interventions[i], size));
  }
  VS_RETURN_IF_ERROR(scope.model.engine->CheckInterventionBytes(size.rows));
  VS_ASSIGN_OR_RETURN(result.memory, scope.model.engine->TakeRequestMemory(size.OnHost(names)));
  for (int i = 0; i < interventions.size(); ++i) {
    Outline& outline = outlines[static_cast<size_t>(i)];
    VS_ASSIGN_OR_RETURN(
        outline.intervention.operation,
        OperationFromProto(context_of(outline), interventions[i], outline.intervention));
    result.interventions.push_back(std::move(outline.intervention));
  }
  return result;
}

absl::StatusOr<std::shared_ptr<const engine::PreparedInterventions>> PreparedFromProto(
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const InterventionScope& scope, UsedResources& used) {
  VS_ASSIGN_OR_RETURN(CallInterventions made, InterventionsFromProto(interventions, scope, used));
  return scope.model.engine->Prepare(std::move(made.interventions), std::move(made.memory));
}

}  // namespace valuescope::services
