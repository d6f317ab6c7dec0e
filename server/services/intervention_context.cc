#include "services/intervention_context.h"

#include "base/error.h"
#include "base/status_macros.h"
#include "services/request_codec.h"

namespace valuescope::services {
namespace {

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
}  // namespace

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

}  // namespace valuescope::services
