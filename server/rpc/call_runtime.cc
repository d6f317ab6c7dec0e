#include "rpc/call_runtime.h"

#include <utility>

#include "absl/strings/str_cat.h"
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
  for (const auto& [call, bytes] : running_) call->Stop(Draining());
}

absl::Status CallRuntime::Enter(CallContext* call, int64_t request_bytes) {
  absl::MutexLock lock(&mutex_);
  if (!accepting_) return Draining();
  // One alone is bounded by what a message may be.
  if (request_bytes_ > 0 && request_bytes > options_.request_bytes - request_bytes_) {
    return RetryLater(
        "REQUEST_MEMORY_FULL",
        absl::StrCat("the requests that run or wait hold ", request_bytes_, " of ",
                     options_.request_bytes, " bytes, and this one has ", request_bytes),
        absl::Seconds(1));
  }
  running_.emplace(call, request_bytes);
  request_bytes_ += request_bytes;
  return absl::OkStatus();
}

void CallRuntime::Leave(CallContext* call) {
  absl::MutexLock lock(&mutex_);
  const auto found = running_.find(call);
  request_bytes_ -= found->second;
  running_.erase(found);
}

}  // namespace valuescope::rpc
