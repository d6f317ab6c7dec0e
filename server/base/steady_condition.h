// A condition that is waited for at most some length of time. absl::CondVar's waits end at a time
// of day, so one that is under way when the system's clock is set back goes on for as much longer;
// this one's do not.
#ifndef VALUESCOPE_BASE_STEADY_CONDITION_H_
#define VALUESCOPE_BASE_STEADY_CONDITION_H_

#include <algorithm>
#include <condition_variable>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace valuescope {

class SteadyCondition {
 public:
  // Until signalled, and now and then for no reason, or until Clock::Steady() tells `deadline`, and
  // then true. Lets go of `mutex` meanwhile.
  bool WaitWithDeadline(absl::Mutex* mutex, absl::Time deadline) {
    const absl::Duration left = deadline - Clock::Steady().Now();
    Unlockable lock{mutex};
    const auto most = absl::ToChronoNanoseconds(std::min(left, absl::Hours(24)));
    return condition_.wait_for(lock, most) == std::cv_status::timeout;
  }

  void SignalAll() { condition_.notify_all(); }

 private:
  struct Unlockable {
    absl::Mutex* mutex;
    void lock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex->Lock(); }
    void unlock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex->Unlock(); }
  };

  std::condition_variable_any condition_;
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_STEADY_CONDITION_H_
