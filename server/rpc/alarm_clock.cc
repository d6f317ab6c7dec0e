#include "rpc/alarm_clock.h"

#include "absl/time/clock.h"

namespace valuescope::rpc {

AlarmClock::AlarmClock() : thread_([this] { Loop(); }) {}

AlarmClock::~AlarmClock() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

int64_t AlarmClock::Add(std::function<absl::Time()> ring) {
  absl::MutexLock lock(&mutex_);
  alarms_.emplace(++last_id_, Entry{.ring = std::move(ring)});
  return last_id_;
}

void AlarmClock::Set(int64_t id, absl::Time when) {
  absl::MutexLock lock(&mutex_);
  SetLocked(id, when);
  const bool first = !due_.empty() && due_.begin()->second == id;
  if (first) changed_.SignalAll();
}

void AlarmClock::Remove(int64_t id) {
  absl::MutexLock lock(&mutex_);
  const auto alarm = alarms_.find(id);
  if (alarm == alarms_.end()) return;
  SetLocked(id, absl::InfiniteFuture());
  alarm->second.cancelled = true;
  while (ringing_ == id) changed_.Wait(&mutex_);
  alarms_.erase(alarm);
}

void AlarmClock::SetLocked(int64_t id, absl::Time when) {
  const auto alarm = alarms_.find(id);
  if (alarm == alarms_.end() || alarm->second.cancelled) return;
  due_.erase({alarm->second.when, id});
  alarm->second.when = when;
  if (when != absl::InfiniteFuture()) due_.emplace(when, id);
}

void AlarmClock::Loop() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    if (due_.empty() || due_.begin()->first > absl::Now()) {
      changed_.WaitWithDeadline(&mutex_,
                                due_.empty() ? absl::InfiniteFuture() : due_.begin()->first);
      continue;
    }
    ringing_ = due_.begin()->second;
    SetLocked(ringing_, absl::InfiniteFuture());
    const std::function<absl::Time()>& ring = alarms_.at(ringing_).ring;
    mutex_.Unlock();
    const absl::Time next = ring();
    mutex_.Lock();
    // Unless somebody said better meanwhile.
    const bool unset = alarms_.at(ringing_).when == absl::InfiniteFuture();
    if (unset) SetLocked(ringing_, next);
    ringing_ = 0;
    changed_.SignalAll();
  }
}

}  // namespace valuescope::rpc
