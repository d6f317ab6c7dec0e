#include "rpc/call_context.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace valuescope::rpc {
namespace {

// What others hold for longer than this they may hold for minutes.
constexpr absl::Duration kPatience = absl::Seconds(5);

}  // namespace

absl::Status CallContext::Hold(int64_t bytes) const {
  if (memory == nullptr) return absl::OkStatus();
  if (held_ == nullptr) {
    VS_ASSIGN_OR_RETURN(held_, memory->Take(0));
  }
  if (!may_wait) return held_->Grow(bytes);
  const absl::Time until = std::min(absl::Now() + kPatience, deadline);
  const auto stopped = [this] { return cancellation.cancelled(); };
  const absl::Status grown = held_->GrowInTurn(bytes, until, stopped);
  return !grown.ok() && stopped() ? Why() : grown;
}

void CallContext::GiveBack(int64_t bytes) const {
  if (held_ != nullptr) held_->ShrinkTo(held_->bytes() - bytes);
}

absl::Status CallContext::Why() const {
  absl::MutexLock lock(&mutex_);
  return why_;
}

void CallContext::Stop(absl::Status why) {
  absl::MutexLock lock(&mutex_);
  if (!why_.ok()) return;
  why_ = std::move(why);
  cancellation.Cancel();
  for (const auto& [id, callback] : callbacks_) callback();
  callbacks_.clear();
}

// Handlers see a const context; registering with it changes nothing that they can read.
StopCallback::StopCallback(const CallContext* context, std::function<void()> callback)
    : context_(const_cast<CallContext*>(context)) {
  absl::MutexLock lock(&context_->mutex_);
  if (!context_->why_.ok()) {
    callback();
    return;
  }
  id_ = ++context_->last_callback_;
  context_->callbacks_.emplace(id_, std::move(callback));
}

StopCallback::~StopCallback() {
  absl::MutexLock lock(&context_->mutex_);
  context_->callbacks_.erase(id_);
}

}  // namespace valuescope::rpc
