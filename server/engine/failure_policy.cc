#include "engine/failure_policy.h"

#include <c10/util/Exception.h>

#include <exception>

#include "base/error.h"

namespace valuescope::engine {
namespace {

absl::Status Failed(Doing doing) {
  switch (doing) {
    case Doing::kMakingRoom:
      return NeverFits("OUT_OF_MEMORY",
                       "there was no memory for the request's interventions or captures");
    case Doing::kRunningStep:
      return ErrorWithReason(absl::StatusCode::kInternal, "STEP_FAILED",
                             "a step of the model failed");
    case Doing::kTakingResult:
      break;
  }
  return NeverFits("HOST_OUT_OF_MEMORY", "there was no memory for the result");
}

}  // namespace

absl::Status FailureOf(Doing doing, absl::FunctionRef<void()> work) {
  try {
    work();
    return absl::OkStatus();
  } catch (const c10::OutOfMemoryError&) {
    return doing == Doing::kRunningStep
               ? NeverFits("DEVICE_OUT_OF_MEMORY", "the device ran out of memory in this step")
               : Failed(doing);
  } catch (const c10::AcceleratorError&) {
    throw;
  } catch (const std::exception&) {
    return Failed(doing);
  }
}

absl::Status DeviceFailed() {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "DEVICE_FAILED",
                         "the model's device failed; the server has to start again");
}

}  // namespace valuescope::engine
