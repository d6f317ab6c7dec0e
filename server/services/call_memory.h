// Host memory that a call takes of a model's, piece by piece, for what it makes of its request
// before the engine has it.
#ifndef VALUESCOPE_SERVICES_CALL_MEMORY_H_
#define VALUESCOPE_SERVICES_CALL_MEMORY_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "base/memory_ledger.h"
#include "engine/engine.h"

namespace valuescope::services {

// For one call's thread. Gives everything back when destroyed.
class CallMemory {
 public:
  // The engine outlives this.
  explicit CallMemory(engine::Engine* engine) : engine_(engine) {}

  // Takes `bytes` more, or nothing: errors of engine::Engine::TakeRequestMemory.
  absl::Status Add(int64_t bytes);

 private:
  engine::Engine* const engine_;
  std::shared_ptr<MemoryLedger::Lease> lease_;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_CALL_MEMORY_H_
