// THE forward pass. Generation, scoring, capture, steering and attribution all run through
// Transformer::Forward, so what is measured is what is served.
#ifndef VALUESCOPE_MODEL_TRANSFORMER_H_
#define VALUESCOPE_MODEL_TRANSFORMER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/dtype.h"
#include "base/memory_ledger.h"
#include "model/architecture.h"
#include "model/forward_parts.h"
#include "model/gradients.h"
#include "model/kv_cache.h"
#include "model/step.h"

namespace valuescope::model {

struct LoadOptions {
  c10::Device device = c10::kCPU;
  DType dtype = DType::kFloat32;  // of weights and activations
  int threads = 0;                // that will run it; 0: as many as this thread's work has
  // No bit of a token's results may depend on its company. On a CPU in float32 none does in any
  // case; elsewhere products then run in fixed blocks of rows.
  bool batch_invariant = false;
  // Called from the loading thread with the fraction of bytes read, 0 .. 1; may be empty.
  std::function<void(double)> progress;
  // Looked at before every tensor: raised, the load ends with CANCELLED.
  Cancellation cancellation;
  // Where what the model takes after its load is taken from first; outlives it. Null: nothing is
  // counted.
  const MemoryLedger* memory = nullptr;
};

class Transformer : public ForwardParts {
 public:
  // Loads a Hugging Face folder: config.json and model.safetensors, or the shards that
  // model.safetensors.index.json names. Nothing outside `folder` is opened. Errors name the tensor
  // or key: unknown, missing or mis-shaped tensors, unsupported architecture, malformed files
  // (INVALID_ARGUMENT), missing files (NOT_FOUND), too little memory (RESOURCE_EXHAUSTED),
  // cancelled (CANCELLED).
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(const std::string& folder,
                                                           const LoadOptions& options);
  virtual const Architecture& architecture() const = 0;
  virtual DType dtype() const = 0;
  virtual c10::Device device() const = 0;

  // SHA-256 over config.json and every tensor by name, hexadecimal (StoredWeights::Digest).
  virtual const std::string& weights_digest() const = 0;

  // Runs one step: writes the keys and values of its tokens to `cache`, applies `program` (one
  // entry a wire) and returns the logits of batch.logit_tokens, [num_logits, vocabulary] float32.
  // Reads nothing back to the host and allocates no memory whose size depends on values.
  // With a `tape` the same step is recorded for gradients, and the logits are part of the graph;
  // without one nothing of autograd runs.
  virtual at::Tensor Forward(const StepBatch& batch, KvCache& cache, const StepProgram& program,
                             GradientTape* tape) const = 0;
  at::Tensor Forward(const StepBatch& batch, KvCache& cache, const StepProgram& program) const {
    return Forward(batch, cache, program, nullptr);
  }

  // Column i is what neuron i of block `layer` writes per unit of activation: [hidden,
  // intermediate] float32, contiguous, on the CPU. 0 <= layer < num_layers. Where the MLP's output
  // is normed before it is added, the norm's gain is in the columns and its factor, which differs
  // from token to token, is not.
  // Reads the model's files once more: FAILED_PRECONDITION, reason MODEL_FILES_CHANGED, where they
  // are no longer what was loaded.
  virtual absl::StatusOr<at::Tensor> WriteDirections(int layer) const = 0;

  // Rows first_token .. first_token + count - 1 of the unembedding with the final norm's gain in
  // their columns: [count, hidden] float32, contiguous, on the CPU. The inner product of a row with
  // what is added to the residual stream is what it adds to that token's logit, but for the norm's
  // factor, which differs from token to token, and a soft cap. 0 <= first_token, first_token +
  // count <= vocabulary. Reads the model's files once more, as WriteDirections.
  virtual absl::StatusOr<at::Tensor> UnembeddingRows(int64_t first_token, int64_t count) const = 0;

  // d L / d the neurons of block `layer`, float32 [n, intermediate], where `gradients` [n, hidden]
  // are d L / d what the block adds (MLP_OUTPUT) and `neurons` [n, intermediate] are of the model's
  // type. A norm behind the MLP is held at the factor that these neurons give it. `weights` are of
  // a path that begins at the block's MLP_NEURONS or before.
  virtual at::Tensor NeuronGradients(int layer, const at::Tensor& neurons,
                                     const at::Tensor& gradients,
                                     const GradientWeights& weights) const = 0;
  // What block `layer` writes beside its neurons' part, [hidden]; undefined where it is nothing.
  virtual at::Tensor NeuronBias(int layer) const = 0;

  // Bytes of memory that MakeGradientWeights takes at most for `path`; 0 where no weight on it is
  // packed.
  virtual int64_t GradientWeightBytes(const GradientPath& path) const = 0;
  // The weights that a tape for `path` needs; nothing is held after an error.
  // Reads those that are packed from the model's files once more: FAILED_PRECONDITION, reason
  // MODEL_FILES_CHANGED, where they are no longer what was loaded. RESOURCE_EXHAUSTED, with a retry
  // delay (reason GRADIENT_MEMORY_FULL) where others hold too much of LoadOptions::memory, without
  // one (reason GRADIENT_WEIGHTS_TOO_LARGE) where all of it or of the machine is too little.
  // CANCELLED before the next weight once `cancellation` is raised.
  virtual absl::StatusOr<std::shared_ptr<const GradientWeights>> MakeGradientWeights(
      const GradientPath& path, const Cancellation& cancellation) const = 0;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_TRANSFORMER_H_
