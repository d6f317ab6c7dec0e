#include "rpc/stepper.h"

#include <utility>

#include "base/check.h"

namespace valuescope::rpc {

std::shared_ptr<Stepper> Stepper::Create(CallRuntime* runtime, std::function<bool()> step) {
  return std::shared_ptr<Stepper>(new Stepper(runtime, std::move(step)));
}

absl::Status Stepper::Start() {
  const absl::Status submitted = Submit();
  if (submitted.ok()) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  state_ = State::kOver;
  return submitted;
}

void Stepper::Wake() {
  {
    absl::MutexLock lock(&mutex_);
    if (state_ == State::kRunning) state_ = State::kWokenWhileRunning;
    if (state_ != State::kResting) return;
    state_ = State::kQueued;
  }
  // The lane has a thread since the first step, and a place for every call that entered it.
  VS_CHECK(Submit().ok());
}

absl::Status Stepper::Submit() {
  // Steps are short, so tenants have one line.
  return runtime_->Submit(Lane::kWaiting, /*tenant=*/"",
                          [self = shared_from_this()] { self->Run(); });
}

void Stepper::Run() {
  {
    absl::MutexLock lock(&mutex_);
    state_ = State::kRunning;
  }
  const bool over = step_();
  {
    absl::MutexLock lock(&mutex_);
    if (over) {
      state_ = State::kOver;
      return;
    }
    if (state_ == State::kRunning) {
      state_ = State::kResting;
      return;
    }
    state_ = State::kQueued;
  }
  VS_CHECK(Submit().ok());
}

}  // namespace valuescope::rpc
