// Effects of ablating single neurons of one sequence: L - L with the neuron at its base at the
// tokens that are asked about, the others of these tokens computed anew.
//
// One pass runs the sequence as it is. What a block's MLP adds at a token follows from that pass:
// an ablated neuron takes (a_i - base_i) w_i from what down_proj gives. So a pass of ablated
// neurons begins behind their block, as many copies of the sequence side by side as neurons, and
// ends behind the block where L is read. Before the first token that is asked about nothing
// changes: those tokens do not run again, and the copies share their keys and values.
#ifndef VALUESCOPE_ENGINE_ABLATION_RUN_H_
#define VALUESCOPE_ENGINE_ABLATION_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/neuron_run.h"
#include "engine/restart.h"
#include "model/kv_cache.h"
#include "model/transformer.h"

namespace valuescope::engine {

class AblationRun : public NeuronRun {
 public:
  // As StartNeuronRun, for an AblationQuestion. Has fewer copies in a pass where `memory` has less.
  static absl::StatusOr<std::unique_ptr<NeuronRun>> Start(const model::Transformer& transformer,
                                                          const NeuronRequest& request,
                                                          MemoryLedger& memory);

  bool done() const override { return done_; }
  void Advance() override;
  std::vector<NeuronScores> Take() override { return AsOnlyOne(std::move(result_)); }

 private:
  // Of one block, at the positions that run again.
  struct Clean {
    at::Tensor mid;      // [positions, hidden] float32
    at::Tensor neurons;  // [positions, intermediate] float32
  };
  // The block whose neurons are ablated now.
  struct Now {
    size_t block = 0;            // of the request's layers
    size_t next = 0;             // of its neurons that are asked about
    std::vector<int64_t> asked;  // neurons
    at::Tensor mid;              // [positions, hidden] of the model's type
    at::Tensor projected;        // [positions, hidden] float32: what down_proj gave
    at::Tensor lost;             // [positions, intermediate] float32: a_i - base_i, or 0
    at::Tensor factor;           // [positions, 1] float32, of a norm that is held
  };

  AblationRun(const model::Transformer& transformer, const NeuronRequest& request, Restart restart,
              std::shared_ptr<MemoryLedger::Lease> lease);

  void RunClean();
  // The first block from `block` on that has neurons to ablate; done where none has.
  void BeginBlock(size_t block);
  void RunCopies();
  // RESIDUAL_POST of the block with each of these neurons ablated: [neurons * positions, hidden].
  at::Tensor Ablated(const at::Tensor& neurons) const;
  // What L reads of x [copies * positions, hidden], RESIDUAL_POST of the last block that runs:
  // changes of L, [copies] float64.
  at::Tensor ChangesOf(const at::Tensor& x) const;

  const model::Transformer& transformer_;
  const NeuronRequest& request_;
  const AblationQuestion& question_;
  const std::shared_ptr<MemoryLedger::Lease> lease_;
  const std::vector<int64_t> ids_;
  const Restart restart_;
  model::KvCache cache_;
  std::vector<Clean> clean_;  // one a layer; empty tensors where none of its neurons is asked about
  at::Tensor clean_read_;     // [reread, hidden or vocabulary] float32
  Now now_;
  NeuronScores result_;
  bool done_ = false;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ABLATION_RUN_H_
