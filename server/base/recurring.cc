#include "base/recurring.h"

#include "base/check.h"
#include "base/clock.h"

namespace valuescope {

void Recurring::Start() {
  VS_CHECK(!thread_.joinable());
  thread_ = std::thread([this] { Run(); });
}

void Recurring::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
  changed_.SignalAll();
}

void Recurring::BeginStop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  changed_.SignalAll();
}

bool Recurring::stopping() const {
  absl::MutexLock lock(&mutex_);
  return stopping_;
}

bool Recurring::Stop(absl::Duration patience) {
  BeginStop();
  if (!thread_.joinable()) return true;
  {
    const absl::Time deadline = Clock::Steady().Now() + patience;
    absl::MutexLock lock(&mutex_);
    while (!ended_ && Clock::Steady().Now() < deadline) {
      changed_.WaitWithDeadline(&mutex_, deadline);
    }
    if (!ended_) return false;
  }
  thread_.join();
  return true;
}

void Recurring::Run() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    woken_ = false;
    mutex_.Unlock();
    const absl::Duration pause = work_();
    mutex_.Lock();
    const absl::Time next = Clock::Steady().Now() + pause;
    while (!woken_ && !stopping_ && Clock::Steady().Now() < next) {
      changed_.WaitWithDeadline(&mutex_, next);
    }
  }
  ended_ = true;
  changed_.SignalAll();
}

}  // namespace valuescope
