// What a failure ends, and with which error. Memory that a request does not find ends that request
// alone; an operator that throws ends the requests of its step; and a device that fails ends
// everybody for good, because it fails every call that follows.
#ifndef VALUESCOPE_ENGINE_FAILURE_POLICY_H_
#define VALUESCOPE_ENGINE_FAILURE_POLICY_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace valuescope::engine {

// What an engine does that may throw.
enum class Doing : uint8_t {
  kMakingRoom,    // for a request's rows or captures
  kRunningStep,   // of all of its requests
  kTakingResult,  // of one request
};

// Does it. OK, or what those hear whom it was for. Throws what a failed device throws: only who
// can end everybody may catch that.
absl::Status FailureOf(Doing doing, absl::FunctionRef<void()> work);

// What a failed device ends everything with: UNAVAILABLE, reason DEVICE_FAILED. Only another
// process can go on.
absl::Status DeviceFailed();

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_FAILURE_POLICY_H_
