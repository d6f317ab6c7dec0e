#include "model/site.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "model/architecture.h"

namespace valuescope::model {
namespace {

// Per-layer wires in the order of the forward pass; RESIDUAL_PRE never stays one (it normalises
// away).
constexpr Site kLayerSites[] = {Site::kAttentionHeads, Site::kAttentionOutput, Site::kResidualMid,
                                Site::kMlpGate,        Site::kMlpNeurons,      Site::kMlpWritten,
                                Site::kMlpOutput,      Site::kResidualPost};
constexpr int kSitesPerLayer = 8;

}  // namespace

absl::string_view NameOf(Site site) {
  switch (site) {
    case Site::kEmbedding:
      return "EMBEDDING";
    case Site::kResidualPre:
      return "RESIDUAL_PRE";
    case Site::kResidualMid:
      return "RESIDUAL_MID";
    case Site::kResidualPost:
      return "RESIDUAL_POST";
    case Site::kAttentionHeads:
      return "ATTENTION_HEADS";
    case Site::kAttentionOutput:
      return "ATTENTION_OUTPUT";
    case Site::kMlpNeurons:
      return "MLP_NEURONS";
    case Site::kMlpOutput:
      return "MLP_OUTPUT";
    case Site::kFinalNorm:
      return "FINAL_NORM";
    case Site::kLogits:
      return "LOGITS";
    case Site::kMlpGate:
      return "MLP_GATE";
    case Site::kMlpWritten:
      return "MLP_WRITTEN";
  }
  return "";
}

bool IsPerLayer(Site site) {
  return site != Site::kEmbedding && site != Site::kFinalNorm && site != Site::kLogits;
}

absl::Status CheckLayers(Site site, const std::vector<int>& layers,
                         const Architecture& architecture) {
  if (!IsPerLayer(site)) {
    if (layers.empty()) return absl::OkStatus();
    return InvalidField("layers", absl::StrCat(std::string(NameOf(site)), " has no layers"));
  }
  if (layers.empty()) return InvalidField("layers", "must name at least one layer");
  for (size_t i = 0; i < layers.size(); ++i) {
    const std::string field = absl::StrCat("layers[", i, "]");
    if (layers[i] < 0 || layers[i] >= architecture.num_layers) {
      return OutOfRange(field, layers[i], 0, architecture.num_layers - 1);
    }
    if (i > 0 && layers[i] <= layers[i - 1])
      return InvalidField(field, "must be above the one before it");
  }
  return absl::OkStatus();
}

int64_t WidthOf(Site site, const Architecture& architecture) {
  switch (site) {
    case Site::kAttentionHeads:
      return architecture.num_heads * architecture.head_dim;
    case Site::kMlpNeurons:
    case Site::kMlpGate:
    case Site::kMlpWritten:
      return architecture.intermediate;
    case Site::kLogits:
      return architecture.vocabulary;
    default:
      return architecture.hidden;
  }
}

Wire Normalised(Wire wire) {
  if (!IsPerLayer(wire.site)) return {wire.site, 0};
  if (wire.site != Site::kResidualPre) return wire;
  if (wire.layer == 0) return {Site::kEmbedding, 0};
  return {Site::kResidualPost, wire.layer - 1};
}

int WireIndex(Wire normalised, const Architecture& architecture) {
  if (normalised.site == Site::kEmbedding) return 0;
  if (normalised.site == Site::kFinalNorm) return 1 + kSitesPerLayer * architecture.num_layers;
  if (normalised.site == Site::kLogits) return 2 + kSitesPerLayer * architecture.num_layers;
  for (int i = 0; i < kSitesPerLayer; ++i) {
    if (kLayerSites[i] == normalised.site) return 1 + kSitesPerLayer * normalised.layer + i;
  }
  VS_CHECK(false);
}

int NumWires(const Architecture& architecture) {
  return 3 + kSitesPerLayer * architecture.num_layers;
}

}  // namespace valuescope::model
