// Whether a model fits the memory that is free where it goes, from what its config.json describes:
// asked before anything is read.
#ifndef VALUESCOPE_ENGINE_MODEL_MEMORY_H_
#define VALUESCOPE_ENGINE_MODEL_MEMORY_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/engine_options.h"
#include "model/architecture.h"

namespace valuescope::engine {

// Bytes that a model takes of its device.
struct MemoryNeed {
  int64_t weights = 0;  // taken while it loads
  int64_t cache = 0;    // may come to be taken once it is loaded
  bool cache_at_once = false;
  int64_t scratch = 0;  // of its largest step, beside what its requests take

  // What has to be free for it to load, and what it may come to have.
  int64_t ToLoad() const { return weights + (cache_at_once ? cache : 0); }
  int64_t InAll() const { return weights + cache + scratch; }
};

MemoryNeed MemoryNeeded(const model::Architecture& architecture, const EngineOptions& options);

// `promised`: bytes of those that are free which loads that run still take. RESOURCE_EXHAUSTED,
// reason MODEL_TOO_LARGE, where fewer than `needed` are left; OK where the system does not say.
absl::Status CheckFits(int64_t needed, int64_t promised, const EngineOptions& options);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_MODEL_MEMORY_H_
