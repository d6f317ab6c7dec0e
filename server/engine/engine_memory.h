// The accounts of an engine's memory: what requests are made of and their captures on the host,
// and the bound of the intervention tables. What does not fit is refused before it is allocated:
// with a retry delay where others hold too much now, without one where nobody could ever have it.
#ifndef VALUESCOPE_ENGINE_ENGINE_MEMORY_H_
#define VALUESCOPE_ENGINE_ENGINE_MEMORY_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/memory_ledger.h"
#include "engine/engine.h"
#include "engine/engine_options.h"

namespace valuescope::engine {

// Thread-safe.
class EngineMemory {
 public:
  explicit EngineMemory(const EngineOptions& options);

  // As Engine::TakeRequestMemory.
  absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> TakeForRequest(int64_t bytes);
  // What a request's taps may need, at most captures_of_one(): taken before it is admitted and
  // given back when the last copy of its result is gone, so a client that does not read its results
  // cannot make the server run out of memory: it makes others wait. RESOURCE_EXHAUSTED, reason
  // CAPTURE_MEMORY_FULL, with a retry delay.
  absl::StatusOr<std::shared_ptr<MemoryLedger::Lease>> TakeForCaptures(int64_t bytes);
  int64_t captures_of_one() const { return captures_.capacity(); }
  // As Engine::KeepCaptures.
  absl::StatusOr<KeptCaptures> KeepCaptures(int64_t bytes);

  // As Engine::CheckInterventionBytes.
  absl::Status CheckInterventionRows(int64_t bytes) const;
  // RESOURCE_EXHAUSTED, reason INTERVENTIONS_TOO_LARGE, where tables that take `bytes` with nobody
  // else in them are too large.
  absl::Status CheckInterventionTables(int64_t bytes) const;

  // What is held now.
  void Report(EngineStatistics& statistics) const;

 private:
  absl::Status CaptureMemoryFull() const;

  const int64_t tables_bytes_;
  MemoryLedger requests_;
  MemoryLedger captures_;
  MemoryLedger kept_captures_;  // the part of them that is kept together; counted in both
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ENGINE_MEMORY_H_
