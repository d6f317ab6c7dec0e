// What is asked of the engine about single neurons, as plain data: a sequence, a scalar L that is
// made of it, the blocks whose neurons are asked about, the tokens at which they are, and the
// question.
#ifndef VALUESCOPE_ENGINE_NEURON_REQUEST_H_
#define VALUESCOPE_ENGINE_NEURON_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/request.h"

namespace valuescope::engine {

// <vector, RESIDUAL_POST of `layer`>, the mean over the tokens.
struct ProjectionTarget {
  SharedFloats vector;  // [hidden]
  int layer = 0;
  TokenSelection tokens{.kind = TokenKind::kResponse, .positions = {}};
};

// mean logit of `positive` - mean logit of `negative`, the mean over the tokens.
struct LogitDifferenceTarget {
  std::vector<int32_t> positive;  // at least one
  std::vector<int32_t> negative;  // none: 0
  TokenSelection tokens{.kind = TokenKind::kLastPrompt, .positions = {}};
};

// Log-probability of the response, the sum over its tokens.
struct ResponseLogprobTarget {};

using NeuronTarget = std::variant<ProjectionTarget, LogitDifferenceTarget, ResponseLogprobTarget>;

// The midpoint rule between the block's neurons at 0 and as they are.
struct PathNodes {
  int steps = 0;  // of the rule; 0: 4, 12, 36, ... until the scores are stable
  // Only without steps: they may change by so much of their norm, and take so many nodes.
  double tolerance = 1e-3;
  int most = 324;
};

inline constexpr int kMostGradientSteps = 4096;

// What is L's derivative by a neuron? A norm behind the block's own MLP is held at its clean
// factor; those of other blocks are live.
struct GradientQuestion {
  // Absent: the gradient at the activations as they are.
  std::optional<PathNodes> path;
};

// What does L lose once this neuron alone is ablated at the tokens?
struct AblationQuestion {
  // Of each of NeuronRequest::layers those that are asked about; empty: all of all layers.
  ChosenNeurons neurons;
  SharedFloats base;  // [layers, intermediate], what takes their place; null: 0
  // Holds a norm behind the block's own MLP at its clean factor.
  bool holds_norm_factor = false;
};

// By how much is the response more likely where what the neuron writes is read at once: with
// x RESIDUAL_MID of its block at the positions that predict the response's tokens, how much more do
// the final norm and the unembedding make of x + a_i w_i than of x? w_i and a_i as MLP_WRITTEN has
// them. NeuronRequest::tokens are not looked at, and the target is ResponseLogprobTarget.
struct LogprobQuestion {
  // Norms x + a_i w_i by its own factor instead of that of x.
  bool recomputes_norm_factor = false;
};

using NeuronQuestion = std::variant<GradientQuestion, AblationQuestion, LogprobQuestion>;

struct NeuronRequest {
  std::string tenant = "default";
  bool background = false;        // takes nothing of the tokens that its tenant may have run
  std::vector<int32_t> prompt;    // at least one token
  std::vector<int32_t> response;  // at least one token
  std::vector<int> layers;        // ascending; none behind that of a ProjectionTarget
  // Of the neurons. The sequence's first token is left out unless it is named: by positions, or as
  // the last one of the prompt or of all.
  TokenSelection tokens{.kind = TokenKind::kResponse, .positions = {}};
  NeuronTarget target;
  NeuronQuestion question;
};

// What the neurons of one sequence come to.
struct NeuronScores {
  // [layers, intermediate]. Gradients: the sum over tokens of a_i dL / da_i, dL / da_i its mean
  // along a path. Ablation: L - L with the neuron ablated; 0 where it is not asked about. Logprob:
  // the change, the sum over the response's tokens.
  std::vector<float> scores;
  // Gradients: sum over tokens of dL / da_i, [layers, intermediate].
  std::vector<float> gradients;
  // With a path: L - L with the block's neurons at 0, [layers].
  std::vector<double> effects;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_NEURON_REQUEST_H_
