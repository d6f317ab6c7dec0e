// Sites name the places of the forward pass that can be read (taps) and edited (interventions). A
// wire is one site of one layer. Two names may mean one wire: the input of block l > 0 is the
// output of block l-1, the input of block 0 is the embedding; Normalised() picks the one name under
// which the forward pass visits it. The last two are made only where a tap reads them: they cannot
// be edited, and the contract has no name for them.
#ifndef VALUESCOPE_MODEL_SITE_H_
#define VALUESCOPE_MODEL_SITE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace valuescope::model {

struct Architecture;

enum class Site : uint8_t {
  kEmbedding,        // what enters block 0, after any scaling          [hidden]
  kResidualPre,      // input of block l                                [hidden]
  kResidualMid,      // after attention was added                       [hidden]
  kResidualPost,     // output of block l, before the final norm        [hidden]
  kAttentionHeads,   // input of o_proj                                 [heads * head_dim]
  kAttentionOutput,  // what attention adds to the residual stream      [hidden]
  kMlpNeurons,       // input of down_proj: act(gate) * up              [intermediate]
  kMlpOutput,        // what the MLP adds to the residual stream        [hidden]
  kFinalNorm,        // output of the final norm                        [hidden]
  kLogits,           // after any soft cap                              [vocabulary]
  kMlpGate,          // gate_proj, of the sign of act(gate)             [intermediate]
  kMlpWritten,       // MLP_NEURONS times the factor (float32) of a norm behind the MLP, if any:
                     // down_proj and that norm's gain make MLP_OUTPUT of it  [intermediate]
};

// "RESIDUAL_POST", ... as the contract spells it.
absl::string_view NameOf(Site site);

// True for sites that exist once a block; the others ignore `layer`.
bool IsPerLayer(Site site);

// INVALID_ARGUMENT, field "layers" or "layers[i]": layers at a site that has none, none at a site
// that has some, blocks that the model has not or that do not ascend.
absl::Status CheckLayers(Site site, const std::vector<int>& layers,
                         const Architecture& architecture);

// Width of an activation at `site`.
int64_t WidthOf(Site site, const Architecture& architecture);

struct Wire {
  Site site = Site::kResidualPost;
  int layer = 0;  // 0-based block; 0 for sites that exist once

  friend bool operator==(const Wire&, const Wire&) = default;
};

// RESIDUAL_PRE(l > 0) -> RESIDUAL_POST(l - 1), RESIDUAL_PRE(0) -> EMBEDDING, every other wire
// itself.
Wire Normalised(Wire wire);

// A dense index of normalised wires, 0 .. NumWires - 1, in the order in which the forward pass
// visits them.
int WireIndex(Wire normalised, const Architecture& architecture);
int NumWires(const Architecture& architecture);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_SITE_H_
