// Sees steps that do not end: a kernel that never returns, a device that hangs, two locks that wait
// for each other. Nothing in the process can mend one, so it is told to whoever can restart the
// process.
#ifndef VALUESCOPE_ENGINE_STEP_WATCHDOG_H_
#define VALUESCOPE_ENGINE_STEP_WATCHDOG_H_

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/clock.h"

namespace valuescope::engine {

// A model's engine at one moment.
struct RunningStep {
  std::string model;
  absl::Time began;  // absl::InfiniteFuture(): it has nothing to do
};

// Not thread-safe: one thread looks.
class StepWatchdog {
 public:
  // Each is called once for a step: when it is first found to be stuck, and when it ended after all
  // (or its model is gone).
  struct Observer {
    std::function<void(const std::string& model, absl::Duration running)> on_stuck;
    std::function<void(const std::string& model)> on_moving;
  };

  // A step that runs longer than `limit` is stuck; a limit of 0 calls none so.
  StepWatchdog(absl::Duration limit, const Clock* clock, Observer observer);

  // Whether no step is stuck.
  bool Look(const std::vector<RunningStep>& steps);

 private:
  const absl::Duration limit_;
  const Clock* const clock_;
  const Observer observer_;
  std::set<std::string> stuck_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_STEP_WATCHDOG_H_
