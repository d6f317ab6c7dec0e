// Gradients of one sequence's neurons, averaged along a path that scales those of one block from 0
// to what they are: integrated gradients. What the block adds is scaled with them, so that a pass
// begins behind the block, and at the first token that changes; nodes of the path run side by side.
#ifndef VALUESCOPE_ENGINE_PATH_RUN_H_
#define VALUESCOPE_ENGINE_PATH_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/gradient_run.h"
#include "engine/neuron_run.h"
#include "engine/restart.h"
#include "model/gradients.h"
#include "model/kv_cache.h"
#include "model/transformer.h"

namespace valuescope::engine {

class PathRun : public NeuronRun {
 public:
  // INVALID_ARGUMENT naming "question.steps", "question.tolerance" or "question.most".
  static absl::Status Check(const PathNodes& path);

  // As StartNeuronRun, for a GradientQuestion with a path.
  static absl::StatusOr<std::unique_ptr<NeuronRun>> Start(
      const model::Transformer& transformer, const NeuronRequest& request,
      std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory);

  bool done() const override { return done_; }
  void Advance() override;
  std::vector<NeuronScores> Take() override { return AsOnlyOne(std::move(result_)); }

 private:
  PathRun(const model::Transformer& transformer, const NeuronRequest& request,
          std::shared_ptr<const model::GradientWeights> weights,
          std::shared_ptr<MemoryLedger::Lease> lease);

  // Of one block, at the positions that run again.
  struct Clean {
    at::Tensor mid;      // [positions, hidden]
    at::Tensor written;  // [positions, hidden]: MLP_OUTPUT
    at::Tensor neurons;  // [positions, intermediate]
  };
  // Where the path of a block stands.
  struct Along {
    size_t block = 0;           // of layers
    int steps = 0;              // of the rule whose nodes run now
    std::vector<double> nodes;  // fractions that have not run
    at::Tensor gradient;        // [asked, hidden] float64, sum over the nodes that ran
    double empty = 0;           // L without the block's neurons, of what is read again
    std::vector<float> scores;  // of the rule before
  };

  void RunClean();
  void BeginBlock(size_t block);
  void RunNodes();
  void EndRule();

  // RESIDUAL_POST of the block at so many of the next nodes: [copies * positions, hidden] of the
  // model's type.
  at::Tensor Scaled(int64_t copies) const;
  // L, of what is read again, from x [copies * positions, hidden], RESIDUAL_POST of the last block
  // that runs: [copies].
  at::Tensor TargetsOf(const at::Tensor& x, model::GradientTape* tape) const;

  const model::Transformer& transformer_;
  const NeuronRequest& request_;
  const PathNodes& path_;  // the request's
  const std::shared_ptr<const model::GradientWeights> weights_;
  const std::shared_ptr<MemoryLedger::Lease> lease_;
  const std::vector<int64_t> ids_;
  const Restart restart_;
  const at::Tensor asked_;  // rows of the positions that run again
  model::KvCache cache_;
  std::vector<Clean> clean_;  // one a block
  double full_ = 0;           // L, of what is read again
  Along along_;
  NeuronScores result_;
  bool done_ = false;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_PATH_RUN_H_
