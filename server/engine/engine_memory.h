// The accounts of one engine's memory: what requests are made of and their captures on the host,
// and the intervention tables on its device. What does not fit is refused before it is allocated:
// with a retry delay where others hold too much now, without one where nobody could ever have it.
#ifndef VALUESCOPE_ENGINE_ENGINE_MEMORY_H_
#define VALUESCOPE_ENGINE_ENGINE_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "base/memory_ledger.h"
#include "engine/engine.h"
#include "engine/engine_options.h"

namespace valuescope::engine {

// Thread-safe.
struct EngineMemory {
  explicit EngineMemory(const EngineOptions& options);

  // As Engine::CheckInterventionBytes.
  absl::Status CheckInterventionRows(int64_t bytes) const;
  // What is held now.
  void Report(EngineStatistics& statistics) const;

  MemoryLedger requests;  // Engine::TakeRequestMemory
  // What a request's taps may need: taken before it is admitted and given back when the last copy
  // of its result is gone, so a client that does not read its results cannot make the server run
  // out of memory: it makes others wait.
  MemoryLedger captures;
  MemoryLedger kept_captures;  // of them: Engine::KeepCaptures
  MemoryLedger tables;         // of the device: InterventionTables
  MemoryLedger neuron_runs;    // of the device: what the passes of Engine::NeuronScoresOf take
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ENGINE_MEMORY_H_
