// Calls back at given times, on one thread: for what has to happen while a call holds no thread, or
// while the one that it holds is busy.
#ifndef VALUESCOPE_RPC_ALARM_CLOCK_H_
#define VALUESCOPE_RPC_ALARM_CLOCK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace valuescope::rpc {

// Thread-safe. Outlives its alarms.
class AlarmClock {
 public:
  AlarmClock();
  ~AlarmClock();
  AlarmClock(const AlarmClock&) = delete;
  AlarmClock& operator=(const AlarmClock&) = delete;

 private:
  friend class Alarm;
  struct Entry {
    std::function<absl::Time()> ring;
    absl::Time when = absl::InfiniteFuture();  // infinite: not set
    bool cancelled = false;
  };

  int64_t Add(std::function<absl::Time()> ring);
  void Set(int64_t id, absl::Time when);
  void Remove(int64_t id);

  void SetLocked(int64_t id, absl::Time when) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Loop();

  absl::Mutex mutex_;
  absl::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t ringing_ ABSL_GUARDED_BY(mutex_) = 0;  // id of the alarm that rings now; 0 none
  std::map<int64_t, Entry> alarms_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<absl::Time, int64_t>> due_ ABSL_GUARDED_BY(mutex_);  // those that are set
  std::thread thread_;
};

// Calls `ring` when its time has come; what that returns is when it rings next (InfiniteFuture:
// once RingAt says so). `ring` must not block and must not cancel the alarm.
class Alarm {
 public:
  Alarm(AlarmClock* clock, std::function<absl::Time()> ring)
      : clock_(clock), id_(clock->Add(std::move(ring))) {}
  ~Alarm() { Cancel(); }
  Alarm(const Alarm&) = delete;
  Alarm& operator=(const Alarm&) = delete;

  // Instead of when it would have rung. Does nothing after Cancel.
  void RingAt(absl::Time when) { clock_->Set(id_, when); }
  // It does not ring afterwards, and where it rings just now this waits for the end.
  void Cancel() { clock_->Remove(id_); }

 private:
  AlarmClock* const clock_;
  const int64_t id_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_ALARM_CLOCK_H_
