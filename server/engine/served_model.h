// A loaded model: everything a request needs to know of one. It is shared: whoever holds it may use
// it, even while it is being replaced.
#ifndef VALUESCOPE_ENGINE_SERVED_MODEL_H_
#define VALUESCOPE_ENGINE_SERVED_MODEL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/dtype.h"
#include "base/memory_ledger.h"
#include "engine/engine.h"
#include "engine/engine_options.h"
#include "model/architecture.h"
#include "text/text_model.h"

namespace valuescope::engine {

struct ServedModel {
  // Of its device, for weights, cache and steps; first, so that it is given back last.
  std::shared_ptr<const MemoryLedger::Lease> memory;
  std::string id;  // without "models/"
  model::Architecture architecture;
  DType dtype = DType::kFloat32;
  std::string device;            // "cpu", "cuda:0"
  std::string device_name;       // kind of a GPU, such as "NVIDIA H200"; empty for a CPU
  bool batch_invariant = false;  // a request's bits never depend on who is beside it
  std::string weights_digest;    // SHA-256, hexadecimal
  int64_t num_parameters = 0;
  int64_t weight_bytes = 0;  // of the weights in `dtype`
  absl::Time load_time;      // when it became ready
  std::shared_ptr<const text::TextModel> text;
  std::shared_ptr<Engine> engine;
};

// Loads the model of a folder and starts its engine, which takes long; `progress` hears the
// fraction that is done. `memory` pays for what it takes of its device; may be null. Its errors are
// those of TextModel::Load, Transformer::Load and StartEngine, and what the machine refuses is one
// too: nothing is thrown. CANCELLED soon after `cancellation`.
absl::StatusOr<std::shared_ptr<const ServedModel>> LoadServedModel(
    const std::string& id, const std::string& folder, const EngineOptions& options,
    std::shared_ptr<const MemoryLedger::Lease> memory, const std::function<void(double)>& progress,
    const Cancellation& cancellation);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_SERVED_MODEL_H_
