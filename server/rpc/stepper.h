// Runs something step by step, whenever there may be news for it: on a thread while a step works,
// and on none in between.
#ifndef VALUESCOPE_RPC_STEPPER_H_
#define VALUESCOPE_RPC_STEPPER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "rpc/call_runtime.h"

namespace valuescope::rpc {

// Thread-safe. Whoever may wake it shares it, so a wake that comes late finds it over and does
// nothing.
class Stepper : public std::enable_shared_from_this<Stepper> {
 public:
  // `step` runs on Lane::kWaiting of `runtime`, one at a time; it returns true once it is over and
  // may then destroy what it belongs to.
  static std::shared_ptr<Stepper> Create(CallRuntime* runtime, std::function<bool()> step);

  // Runs the first step; wakes before this are part of it. After an error no step ever runs.
  absl::Status Start();

  // Runs a step that begins after this; several wakes may be one step. Never blocks.
  void Wake();

 private:
  enum class State : uint8_t { kQueued, kRunning, kWokenWhileRunning, kResting, kOver };

  Stepper(CallRuntime* runtime, std::function<bool()> step)
      : runtime_(runtime), step_(std::move(step)) {}
  absl::Status Submit();
  void Run();

  CallRuntime* const runtime_;
  const std::function<bool()> step_;
  absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kQueued;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_STEPPER_H_
