// Host memory that captures may hold, over all requests of an engine. A request takes what its taps
// may need before it is admitted and gives it back when the last copy of its result is gone, so a
// client that does not read its results cannot make the server run out of memory: it makes others
// wait.
#ifndef VALUESCOPE_ENGINE_CAPTURE_MEMORY_H_
#define VALUESCOPE_ENGINE_CAPTURE_MEMORY_H_

#include "base/memory_ledger.h"

namespace valuescope::engine {

using CaptureMemory = MemoryLedger;

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_CAPTURE_MEMORY_H_
