// Runs of the engine's own that answer NeuronRequests, pass by pass: between two passes the engine
// does what others wait for.
#ifndef VALUESCOPE_ENGINE_NEURON_RUN_H_
#define VALUESCOPE_ENGINE_NEURON_RUN_H_

#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/neuron_request.h"
#include "model/transformer.h"

namespace valuescope::engine {

class NeuronRun {
 public:
  virtual ~NeuronRun() = default;

  virtual bool done() const = 0;
  // One pass, on the engine's thread. Throws what operators throw.
  virtual void Advance() = 0;
  // Once, when done: of each request that it answers, in order.
  virtual std::vector<NeuronScores> Take() = 0;

 protected:
  static std::vector<NeuronScores> AsOnlyOne(NeuronScores scores) {
    std::vector<NeuronScores> one;
    one.push_back(std::move(scores));
    return one;
  }
};

// INVALID_ARGUMENT naming the field: "layers[i]", "tokens", "target.layer", "target.vector",
// "target.positive[i]", "question.steps", "question.neurons"...; tokens that all stand behind what
// L is made of, whose neurons change nothing (reason READS_NOTHING).
absl::Status CheckNeuronRequest(const NeuronRequest& request,
                                const model::Architecture& architecture);

// Whether the request needs weights for gradients, and the path that these have to pass.
std::optional<model::GradientPath> GradientPathOf(const NeuronRequest& request);

// Answers the first of `requests`, at least one, and more where these share its passes. They were
// checked and have the same layers, kinds of target and question; they and the transformer outlive
// the run. `weights` are of GradientPathOf, where there is one. What the run takes of the device,
// but for weights, it takes of `memory` until its end: RESOURCE_EXHAUSTED. Where its passes can be
// smaller without changing a bit they are before it is refused.
absl::StatusOr<std::unique_ptr<NeuronRun>> StartNeuronRun(
    const model::Transformer& transformer, std::span<const NeuronRequest> requests,
    std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_NEURON_RUN_H_
