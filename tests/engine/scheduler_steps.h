// Steps of a Scheduler as an engine would run them.
#ifndef VALUESCOPE_TESTS_ENGINE_SCHEDULER_STEPS_H_
#define VALUESCOPE_TESTS_ENGINE_SCHEDULER_STEPS_H_

#include <map>
#include <vector>

#include "engine/scheduler.h"

namespace valuescope::engine {

using Step = std::vector<StepItem>;

// Runs one step: everything planned is fed, and a sequence whose known tokens were all fed learns
// one more.
inline Step RunStep(Scheduler& scheduler, std::map<SequenceId, int64_t>& known) {
  const Step step = scheduler.Plan();
  for (const StepItem& item : step) {
    const int64_t fed = item.first + item.count;
    if (fed == known[item.id]) ++known[item.id];
    scheduler.Advance(item.id, fed, known[item.id]);
  }
  return step;
}

}  // namespace valuescope::engine

#endif  // VALUESCOPE_TESTS_ENGINE_SCHEDULER_STEPS_H_
