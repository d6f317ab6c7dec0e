#include "services/intervention_codec.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/engine.h"
#include "model/site.h"
#include "services/intervention_context.h"
#include "services/intervention_sizes.h"
#include "services/named_resources.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

std::string At(absl::string_view field, int index) { return absl::StrCat(field, "[", index, "]"); }

engine::SharedFloats Shared(std::vector<float> numbers) {
  return std::make_shared<const std::vector<float>>(std::move(numbers));
}

// --- Tensors and vectors

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
absl::StatusOr<InlineTensor> InlineFromProto(const InterventionContext& context,
                                             const v1::Tensor& tensor,
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

// The row of the vector `name` that the chosen layer at `index` takes, [width].
absl::StatusOr<std::span<const float>> NamedRow(const InterventionContext& context,
                                                const std::string& field, const std::string& name,
                                                int64_t index, std::optional<int> source_layer) {
  const std::vector<int>& chosen = context.intervention.layers;
  const int layer = chosen.empty() ? 0 : chosen[static_cast<size_t>(index)];
  return context.names.Row({name, context.intervention.site}, source_layer.value_or(layer), field,
                           source_layer ? context.Field("source_layer") : field);
}

// The rows of the vector `name` that the chosen layers take, [num_layers, width].
absl::StatusOr<engine::SharedFloats> NamedRows(const InterventionContext& context,
                                               const std::string& field, const std::string& name,
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

// The rows of an operation with a vector or a tensor, [num_layers, width].
template <typename Proto>
absl::StatusOr<engine::SharedFloats> RowsFromProto(const InterventionContext& context,
                                                   const Proto& proto) {
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

using NeuronsByLayer = std::map<int, engine::NeuronIndices>;

absl::StatusOr<NeuronsByLayer> ListedNeurons(
    const InterventionContext& context,
    const google::protobuf::RepeatedPtrField<v1::NeuronId>& listed) {
  const model::Architecture& architecture = context.scope.model.architecture;
  const int64_t count = context.intervention.site == model::Site::kAttentionHeads
                            ? architecture.num_heads
                            : architecture.intermediate;
  std::map<int, std::set<int64_t>> by_layer;
  for (int i = 0; i < listed.size(); ++i) {
    const std::string field = At(context.Field("neurons"), i);
    const v1::NeuronId& neuron = listed[i];
    VS_RETURN_IF_ERROR(CheckNeuronId(field, neuron, architecture.num_layers, count));
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
absl::StatusOr<NeuronsByLayer> NeuronsFromProto(const InterventionContext& context,
                                                const Proto& proto) {
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
absl::StatusOr<engine::ChosenNeurons> ChooseNeurons(const InterventionContext& context,
                                                    const Proto& proto,
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

absl::StatusOr<engine::Operation> AddFromProto(const InterventionContext& context,
                                               const v1::AddVector& proto) {
  engine::AddVector add{.rows = {},
                        .coefficient = proto.has_coefficient() ? proto.coefficient() : 1.0f};
  VS_ASSIGN_OR_RETURN(add.rows, RowsFromProto(context, proto));
  return add;
}

// The rows of several vectors, [num_layers, vectors, width].
absl::StatusOr<std::vector<float>> NamedDirections(const InterventionContext& context,
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

absl::StatusOr<engine::Operation> ProjectOutFromProto(const InterventionContext& context,
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

absl::StatusOr<engine::Operation> ClampFromProto(const InterventionContext& context,
                                                 const v1::Clamp& proto) {
  if (!proto.has_value()) {
    return InvalidField(context.Field("value"), "is required: a finite number");
  }
  engine::Clamp clamp{.rows = {}, .value = proto.value()};
  VS_ASSIGN_OR_RETURN(clamp.rows, RowsFromProto(context, proto));
  return clamp;
}

absl::StatusOr<engine::Operation> ScaleFromProto(const InterventionContext& context,
                                                 const v1::ScaleNeurons& proto,
                                                 engine::Intervention& intervention) {
  if (!proto.has_factor()) {
    return InvalidField(context.Field("factor"), "is required: a finite number");
  }
  engine::ScaleNeurons scale{.neurons = {}, .factor = proto.factor()};
  VS_ASSIGN_OR_RETURN(scale.neurons, ChooseNeurons(context, proto, intervention));
  return scale;
}

absl::StatusOr<engine::Operation> AblateFromProto(const InterventionContext& context,
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

absl::StatusOr<engine::Operation> ReplaceFromProto(const InterventionContext& context,
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

absl::StatusOr<engine::Operation> OperationFromProto(const InterventionContext& context,
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
    return InterventionContext{outline.field, outline.intervention, scope, names, rows};
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
