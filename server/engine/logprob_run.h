// By how much each neuron raises the log-probability of a response where what it writes is read at
// once (Yu & Ananiadou): log p(w | x + a_i w_i) - log p(w | x), x RESIDUAL_MID of the neuron's
// block at the position that predicts w, summed over the response's tokens.
//
// With y the logits of x before any soft cap and u_i those that w_i makes at a norm factor of 1,
// both linear, the logits of x + a_i w_i are (r' / r) (y + r a_i u_i): r the norm's factor for x,
// r' that for x + a_i w_i, or r again where it is held. So a neuron is unembedded once, whatever
// the number of tokens, and r' follows from |x|, |w_i| and their inner product.
#ifndef VALUESCOPE_ENGINE_LOGPROB_RUN_H_
#define VALUESCOPE_ENGINE_LOGPROB_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/neuron_run.h"
#include "model/transformer.h"

namespace valuescope::engine {

class LogprobRun : public NeuronRun {
 public:
  // As StartNeuronRun, for a LogprobQuestion.
  static absl::StatusOr<std::unique_ptr<NeuronRun>> Start(const model::Transformer& transformer,
                                                          const NeuronRequest& request,
                                                          MemoryLedger& memory);

  bool done() const override { return done_; }
  void Advance() override;
  std::vector<NeuronScores> Take() override { return AsOnlyOne(std::move(result_)); }

 private:
  // Of one block, at the positions that predict the response.
  struct Clean {
    at::Tensor mid;      // [response, hidden] float32
    at::Tensor written;  // [response, intermediate] float32: a_i as MLP_WRITTEN has it
  };
  // The neurons that are unembedded now.
  struct Now {
    size_t block = 0;    // of the request's layers
    int64_t first = 0;   // neuron
    int64_t token = 0;   // of the response, that comes next
    at::Tensor columns;  // [neurons, hidden] float32, what they write
    at::Tensor logits;   // [neurons, vocabulary] float32, u_i
    at::Tensor total;    // [neurons] float64, over the tokens before
  };

  LogprobRun(const model::Transformer& transformer, const NeuronRequest& request,
             std::shared_ptr<MemoryLedger::Lease> lease);

  void RunClean();
  void BeginNeurons(size_t block, int64_t first);
  // Some tokens of the response.
  void RunTokens();
  // x and y of these tokens of the response.
  struct Read {
    at::Tensor mid;       // [tokens, hidden] float32
    at::Tensor factor;    // [tokens, 1] float32, r
    at::Tensor unscaled;  // [tokens, vocabulary] float32, y / r
  };
  Read ReadOf(int64_t first, int64_t count) const;
  // r' / r - 1 for a token with x = mid [hidden] and its activations [neurons]: [neurons] float64.
  at::Tensor FactorChanges(const at::Tensor& mid, const at::Tensor& activations) const;
  // With the model's final soft cap, if it has one.
  at::Tensor Capped(const at::Tensor& logits) const;

  const model::Transformer& transformer_;
  const NeuronRequest& request_;
  const bool recomputes_norm_factor_;
  const std::shared_ptr<MemoryLedger::Lease> lease_;
  const int64_t at_once_;     // neurons
  std::vector<Clean> clean_;  // one a layer
  Now now_;
  NeuronScores result_;
  bool done_ = false;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_LOGPROB_RUN_H_
