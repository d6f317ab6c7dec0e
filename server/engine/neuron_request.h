// What gradients of neurons are asked of the engine, as plain data: a sequence, a scalar L that is
// made of it, the blocks whose neurons are attributed and the tokens at which they are.
#ifndef VALUESCOPE_ENGINE_GRADIENT_REQUEST_H_
#define VALUESCOPE_ENGINE_GRADIENT_REQUEST_H_

#include <cstdint>
#include <optional>
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

using GradientTarget = std::variant<ProjectionTarget, LogitDifferenceTarget, ResponseLogprobTarget>;

// The midpoint rule between the block's neurons at 0 and as they are.
struct PathNodes {
  int steps = 0;  // of the rule; 0: 4, 12, 36, ... until the scores are stable
  // Only without steps: they may change by so much of their norm, and take so many nodes.
  double tolerance = 1e-3;
  int most = 324;
};

inline constexpr int kMostGradientSteps = 4096;

struct GradientRequest {
  std::vector<int32_t> prompt;    // at least one token
  std::vector<int32_t> response;  // at least one token
  std::vector<int> layers;        // ascending; none behind that of a ProjectionTarget
  // Of the neurons. The sequence's first token is left out unless it is named: by positions, or as
  // the last one of the prompt or of all.
  TokenSelection tokens{.kind = TokenKind::kResponse, .positions = {}};
  GradientTarget target;
  // Absent: the gradient at the activations as they are.
  std::optional<PathNodes> path;
};

// What the neurons of one sequence come to. A norm behind the block's own MLP is held at its clean
// factor; those of other blocks are live.
struct NeuronGradients {
  std::vector<float> attributions;  // [layers, intermediate], sum over tokens of a_i dL / da_i
  std::vector<float> gradients;     // [layers, intermediate], sum over tokens of dL / da_i
  // With a path, where dL / da_i is its mean along it: L - L with the block's neurons at 0.
  // [layers]
  std::vector<double> effects;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_GRADIENT_REQUEST_H_
