// Where copies of a sequence begin again once neurons are changed at some of its tokens: what
// stands before the first of these is as it was, and what stands behind the last one that L reads
// does not matter.
#ifndef VALUESCOPE_ENGINE_RESTART_H_
#define VALUESCOPE_ENGINE_RESTART_H_

#include <cstdint>
#include <vector>

#include "engine/neuron_request.h"
#include "engine/neuron_target.h"
#include "engine/sequence_copies.h"
#include "model/architecture.h"

namespace valuescope::engine {

struct Restart {
  NeuronPlaces places;    // asked: none behind what L reads
  SequenceCopies copies;  // as many as run together; the blocks of a whole pass are before theirs
  std::vector<int64_t> reread;  // places.read that run again, counted from copies.begin
  int last = 0;                 // the block whose output L is made of

  // places.asked, counted from copies.begin.
  std::vector<int64_t> AskedRows() const;
};

// Of a request that was checked, one copy.
Restart RestartOf(const NeuronRequest& request, const model::Architecture& architecture);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_RESTART_H_
