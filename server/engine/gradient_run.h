// Gradients of one sequence's neurons, pass by pass. dL / da_i of block l follows from dL / d what
// the block adds to the residual stream, so one backward pass serves all blocks; and along a path
// that scales the neurons of one block, what it adds is scaled, so that a pass begins behind the
// block.
#ifndef VALUESCOPE_ENGINE_GRADIENT_RUN_H_
#define VALUESCOPE_ENGINE_GRADIENT_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/gradient_request.h"
#include "model/gradients.h"
#include "model/transformer.h"

namespace valuescope::engine {

// INVALID_ARGUMENT naming the field: "layers[i]", "tokens", "target.layer", "target.vector",
// "target.positive[i]", "path.steps"...; tokens that all stand behind what L is made of, whose
// neurons change nothing (reason READS_NOTHING).
absl::Status CheckGradientRequest(const GradientRequest& request,
                                  const model::Architecture& architecture);

// What the weights for it have to pass.
model::GradientPath GradientPathOf(const GradientRequest& request);

// Bytes of the device that a run takes at most, weights left out.
int64_t GradientRunBytes(const GradientRequest& request, const model::Architecture& architecture);

class GradientRun {
 public:
  // The request was checked; it and the transformer outlive the run.
  GradientRun(const model::Transformer& transformer, const GradientRequest& request,
              std::shared_ptr<const model::GradientWeights> weights);

  bool done() const { return done_; }
  // One pass. Throws what operators throw.
  void Advance();
  NeuronGradients Take() { return std::move(result_); }

 private:
  // Of one block, where neurons are attributed: [tokens, ...].
  struct Clean {
    at::Tensor mid;      // [all tokens, hidden]
    at::Tensor written;  // [all tokens, hidden]: MLP_OUTPUT
    at::Tensor neurons;  // [all tokens, intermediate]
  };
  // Where the path of a block stands.
  struct Along {
    size_t block = 0;            // of layers
    int steps = 0;               // of the rule whose nodes run now
    std::vector<double> nodes;   // fractions that have not run
    at::Tensor gradient;         // [tokens, hidden] float64, sum over the nodes that ran
    double full = 0, empty = 0;  // L
    std::vector<float> scores;   // of the rule before
  };

  void RunClean();
  void BeginBlock(size_t block);
  void RunNodes();
  void EndRule();

  // One step of `copies` of the sequence.
  at::Tensor Forward(int64_t copies, const model::StepProgram& program, model::GradientTape* tape);
  // L of each copy: [copies] float32. `residual` [copies * tokens, hidden] is that of a projection.
  at::Tensor TargetOf(int64_t copies, const at::Tensor& logits, const at::Tensor& residual) const;
  // Sums over the tokens of a dL / da and dL / da, from dL / d MLP_OUTPUT [tokens, hidden].
  struct Sums {
    std::vector<float> attributions, gradients;
  };
  Sums SumsOf(size_t block, const at::Tensor& gradient) const;
  void Put(size_t block, const Sums& sums);

  at::Tensor OnDevice(std::span<const int64_t> numbers) const;

  const model::Transformer& transformer_;
  const GradientRequest& request_;
  const std::shared_ptr<const model::GradientWeights> weights_;
  std::vector<int64_t> ids_;
  std::vector<int64_t> attributed_;  // positions
  std::vector<int64_t> read_;        // positions that L is made of
  std::vector<Clean> clean_;         // one a block
  Along along_;
  NeuronGradients result_;
  bool done_ = false;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_GRADIENT_RUN_H_
