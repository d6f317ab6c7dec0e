#include "engine/step_watchdog.h"

#include <utility>

namespace valuescope::engine {

StepWatchdog::StepWatchdog(absl::Duration limit, const Clock* clock, Observer observer)
    : limit_(limit > absl::ZeroDuration() ? limit : absl::InfiniteDuration()),
      clock_(clock),
      observer_(std::move(observer)) {}

bool StepWatchdog::Look(const std::vector<RunningStep>& steps) {
  const absl::Time now = clock_->Now();
  std::set<std::string> stuck;
  for (const RunningStep& step : steps) {
    const absl::Duration running = now - step.began;
    if (running <= limit_) continue;
    stuck.insert(step.model);
    if (!stuck_.contains(step.model)) observer_.on_stuck(step.model, running);
  }
  for (const std::string& model : stuck_) {
    if (!stuck.contains(model)) observer_.on_moving(model);
  }
  stuck_ = std::move(stuck);
  return stuck_.empty();
}

}  // namespace valuescope::engine
