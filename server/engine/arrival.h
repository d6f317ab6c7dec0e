// A sequence to be scheduled, as the scheduler and its lines know it.
#ifndef VALUESCOPE_ENGINE_ARRIVAL_H_
#define VALUESCOPE_ENGINE_ARRIVAL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/prefix_keys.h"

namespace valuescope::engine {

using SequenceId = int64_t;
// Sequences of one client share its turn: those of one call, or of one shard of a job.
using ClientId = uint64_t;

struct Arrival {
  SequenceId id = 0;
  int64_t known = 0;    // tokens, at least 1
  int64_t max_fed = 0;  // tokens that it may feed in all
  bool background = false;
  std::string tenant = {};  // whose clients share the turns of one
  ClientId client = 0;
  std::vector<BlockKey> keys =
      {};  // of the full blocks of its known tokens, in order; may end early
  // Tokens from here on must run: what they do is read. Blocks behind it are never others'.
  int64_t run_from = INT64_MAX;
  // It is admitted only once Reservations::Reserve takes what it needs besides blocks.
  bool reserves = false;
  // It may call StartOver, so what it computes from run_from on is not given to others.
  bool may_start_over = false;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_ARRIVAL_H_
