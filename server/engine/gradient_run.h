// Gradients of one sequence's neurons, pass by pass. dL / da_i of block l follows from dL / d what
// the block adds to the residual stream, so one backward pass serves all blocks; and along a path
// that scales the neurons of one block, what it adds is scaled, so that a pass begins behind the
// block.
#ifndef VALUESCOPE_ENGINE_GRADIENT_RUN_H_
#define VALUESCOPE_ENGINE_GRADIENT_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/neuron_run.h"
#include "engine/neuron_target.h"
#include "model/gradients.h"
#include "model/transformer.h"

namespace valuescope::engine {

class GradientRun : public NeuronRun {
 public:
  // INVALID_ARGUMENT naming "question.steps", "question.tolerance" or "question.most".
  static absl::Status Check(const GradientQuestion& question);

  // As StartNeuronRun, for a GradientQuestion.
  static absl::StatusOr<std::unique_ptr<NeuronRun>> Start(
      const model::Transformer& transformer, const NeuronRequest& request,
      std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory);

  bool done() const override { return done_; }
  void Advance() override;
  NeuronScores Take() override { return std::move(result_); }

 private:
  GradientRun(const model::Transformer& transformer, const NeuronRequest& request,
              std::shared_ptr<const model::GradientWeights> weights,
              std::shared_ptr<MemoryLedger::Lease> lease);

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
  at::Tensor TargetsOf(int64_t copies, const at::Tensor& logits, const at::Tensor& residual) const;
  // Sums over the tokens of a dL / da and dL / da, from dL / d MLP_OUTPUT [tokens, hidden].
  struct Sums {
    std::vector<float> attributions, gradients;
  };
  Sums SumsOf(size_t block, const at::Tensor& gradient) const;
  void Put(size_t block, const Sums& sums);

  // On the device.
  at::Tensor Placed(std::span<const int64_t> positions) const;

  const model::Transformer& transformer_;
  const NeuronRequest& request_;
  const std::optional<PathNodes>& path_;  // the request's
  const std::shared_ptr<const model::GradientWeights> weights_;
  const std::shared_ptr<MemoryLedger::Lease> lease_;
  const std::vector<int64_t> ids_;
  NeuronPlaces places_;
  std::vector<Clean> clean_;  // one a block
  Along along_;
  NeuronScores result_;
  bool done_ = false;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_GRADIENT_RUN_H_
