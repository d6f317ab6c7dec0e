// Gradients at the activations as they are, of several sequences in one pass: one backward pass
// serves all blocks of all of them. Where a norm stands behind the MLP, which is to be held at its
// factor in the neurons' own block alone, dL / da_i follows from dL / d what the block adds to the
// residual stream.
#ifndef VALUESCOPE_ENGINE_GRADIENT_RUN_H_
#define VALUESCOPE_ENGINE_GRADIENT_RUN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/neuron_run.h"
#include "engine/neuron_target.h"
#include "engine/whole_sequences.h"
#include "model/gradients.h"
#include "model/transformer.h"

namespace valuescope::engine {

// Sums over tokens of a dL / da and dL / da, [intermediate].
struct GradientSums {
  std::vector<float> attributions, gradients;
};

// From a block's neurons and dL / d these, [tokens, intermediate] float32: one entry for each of
// the `counts` of tokens, which stand one behind the other.
std::vector<GradientSums> GradientSumsOf(const at::Tensor& neurons, const at::Tensor& gradients,
                                         std::span<const int64_t> counts);

// Behind those of the blocks before.
void Append(const GradientSums& sums, NeuronScores& scores);

// Of the device, at most, what is recorded of `tokens` and their derivatives make on their way.
// They stand in a rectangle of sequences that see `length` positions.
int64_t RecordedBytes(const model::Architecture& architecture, int64_t tokens, int64_t length);

// Of one pass, unless a sequence has more: as many as products are fast with, but no more than
// those who wait for the engine, and its memory, can spare. Of the model alone, so that equal
// requests share equal passes wherever they run.
int64_t TokensOfARecordedPass(const model::Architecture& architecture);

class GradientRun : public NeuronRun {
 public:
  // As StartNeuronRun, for GradientQuestions without a path.
  static absl::StatusOr<std::unique_ptr<NeuronRun>> Start(
      const model::Transformer& transformer, std::span<const NeuronRequest> requests,
      std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory);

  bool done() const override { return !results_.empty(); }
  void Advance() override;
  std::vector<NeuronScores> Take() override { return std::move(results_); }

 private:
  GradientRun(const model::Transformer& transformer, std::span<const NeuronRequest> requests,
              std::shared_ptr<const model::GradientWeights> weights,
              std::shared_ptr<MemoryLedger::Lease> lease);

  at::Tensor RunStep(model::StepProgram& program, model::GradientTape& tape) const;
  // Where a block's gradients are taken.
  model::Wire WireOf(int layer) const;
  // dL / d neurons [tokens, intermediate] of block `layer` from those at its wire.
  at::Tensor ByNeurons(int layer, const at::Tensor& neurons, const at::Tensor& gradients) const;
  // L of all sequences together, from the step's logits or RESIDUAL_POST of a projection's layer.
  at::Tensor TargetsOf(const at::Tensor& logits, const at::Tensor& residual) const;

  const model::Transformer& transformer_;
  const std::span<const NeuronRequest> requests_;
  const std::shared_ptr<const model::GradientWeights> weights_;
  const std::shared_ptr<MemoryLedger::Lease> lease_;
  WholeSequences sequences_;
  std::vector<NeuronPlaces> places_;  // one a sequence
  std::vector<NeuronScores> results_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_GRADIENT_RUN_H_
