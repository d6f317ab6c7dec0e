#include "rpc/call_context.h"

namespace valuescope::rpc {

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
