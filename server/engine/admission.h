// Who may join an engine's queue: a request that is right, that could run if nobody else were
// there, for which a place is left, and for which what it will take of the host is there now. All
// of it is decided on the caller's thread, and what takes long comes behind what refuses cheaply.
#ifndef VALUESCOPE_ENGINE_ADMISSION_H_
#define VALUESCOPE_ENGINE_ADMISSION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/compiled_interventions.h"
#include "engine/engine.h"
#include "engine/engine_memory.h"
#include "engine/engine_options.h"
#include "engine/queue_shares.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/taps.h"
#include "engine/token_scope.h"
#include "model/architecture.h"

namespace valuescope::engine {

// Thread-safe.
class Admission {
 public:
  // What a request becomes a sequence with.
  struct Admitted {
    std::shared_ptr<const CompiledInterventions> interventions;
    SequenceTaps taps;
    Sequence::Leases leases;
    // Gives the request's place back before it hears of its end: who hears may send the next one.
    std::shared_ptr<Observer> observer;
  };

  // `architecture` outlives it.
  Admission(const model::Architecture& architecture, const EngineOptions& options,
            const SchedulerOptions& scheduling, EngineMemory& memory);

  // How far the request goes. Errors: those of Engine::Submit that concern its tokens and
  // sampling, and RESOURCE_EXHAUSTED, reason KV_CACHE_TOO_SMALL.
  absl::StatusOr<SequenceExtent> CheckedExtent(const Request& request) const;

  // Takes a place and memory for a request of this extent. The other errors of Engine::Submit, and
  // then nothing is held.
  absl::StatusOr<Admitted> Admit(const Request& request, const SequenceExtent& extent,
                                 std::shared_ptr<Observer> observer);

  // As Engine::Check.
  absl::Status Check(const Request& request) const;

  // That others have what is left of the queue, or that it is full: RESOURCE_EXHAUSTED, reason
  // QUEUE_FULL, with the delay after which a place may be free.
  absl::Status QueueFull(absl::string_view why) const;

 private:
  absl::Status CheckTokens(const Request& request) const;
  absl::Status CheckLengths(const Request& request) const;
  absl::Status CheckIds(absl::string_view field, const std::vector<int32_t>& ids) const;
  absl::StatusOr<std::shared_ptr<const CompiledInterventions>> InterventionsFor(
      const SequenceExtent& extent, const Request& request) const;
  absl::StatusOr<SequenceTaps> TapsFor(const SequenceExtent& extent,
                                       const std::vector<Tap>& taps) const;

  const model::Architecture& architecture_;
  const SchedulerOptions scheduling_;
  EngineMemory& memory_;
  QueueShares shares_;
  const std::function<double(const std::string& tenant)> queue_share_of_;
  TokenQuotas* const token_quotas_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ADMISSION_H_
