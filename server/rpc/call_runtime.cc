#include "rpc/call_runtime.h"

#include <utility>

#include "base/error.h"

namespace valuescope::rpc {
namespace {

absl::Status Draining() {
  return ErrorWithReason(absl::StatusCode::kUnavailable, "DRAINING",
                         "the server is shutting down; retry on another replica");
}

}  // namespace

CallRuntime::CallRuntime(const Authenticator* authenticator, observability::Metrics* metrics,
                         CallRuntimeOptions options)
    : authenticator_(authenticator),
      metrics_(metrics),
      options_(options),
      quick_(options.quick),
      long_running_(options.long_running) {}

absl::Status CallRuntime::Submit(Lane lane, std::function<void()> work) {
  WorkerPool& pool = lane == Lane::kQuick ? quick_ : long_running_;
  if (pool.TrySubmit(work)) return absl::OkStatus();
  return RetryLater("QUEUE_FULL", "the server has as many calls as it can queue", absl::Seconds(1));
}

void CallRuntime::StopAccepting() {
  absl::MutexLock lock(&mutex_);
  accepting_ = false;
}

bool CallRuntime::WaitUntilIdle(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(this, &CallRuntime::Idle), deadline);
}

void CallRuntime::StopRunning() {
  absl::MutexLock lock(&mutex_);
  for (CallContext* call : running_) call->Stop(Draining());
}

absl::Status CallRuntime::Enter(CallContext* call) {
  absl::MutexLock lock(&mutex_);
  if (!accepting_) return Draining();
  running_.insert(call);
  return absl::OkStatus();
}

void CallRuntime::Leave(CallContext* call) {
  absl::MutexLock lock(&mutex_);
  running_.erase(call);
}

}  // namespace valuescope::rpc
