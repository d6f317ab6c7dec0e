// Work that a thread of its own does again and again: at once when it is started, then after
// pauses, or when it is asked to. A pause is a length of time, whatever is done to the system's
// clock.
#ifndef VALUESCOPE_BASE_RECURRING_H_
#define VALUESCOPE_BASE_RECURRING_H_

#include <functional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/steady_condition.h"

namespace valuescope {

// Thread-safe, but for Start and Stop.
class Recurring {
 public:
  // `work` returns how long to pause after it (absl::InfiniteDuration(): until it is asked to), and
  // must not throw.
  explicit Recurring(std::function<absl::Duration()> work) : work_(std::move(work)) {}
  // Waits until the work under way has returned.
  ~Recurring() { Stop(); }
  Recurring(const Recurring&) = delete;
  Recurring& operator=(const Recurring&) = delete;

  // Starts the thread. Call once.
  void Start();

  // Ends the pause. Where the work is under way there is none behind it.
  void Wake();

  // Asks the thread to end, without waiting for it. Idempotent.
  void BeginStop();
  // Whether somebody did, for work that goes on for long.
  bool stopping() const;

  // The same, and false where the work under way does not return in `patience`: ask again.
  bool Stop(absl::Duration patience = absl::InfiniteDuration());

 private:
  void Run();

  const std::function<absl::Duration()> work_;
  mutable absl::Mutex mutex_;
  SteadyCondition changed_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_RECURRING_H_
