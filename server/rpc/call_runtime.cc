#include "rpc/call_runtime.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/last_places.h"
#include "base/status_macros.h"

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
      memory_({.capacity = options.call_bytes,
               .name = "the memory for calls",
               .too_large = "REQUEST_TOO_LARGE",
               .full = "REQUEST_MEMORY_FULL",
               .advice = "ask for less at once"},
              options.host_memory),
      gate_(&clock_, options.receiving),
      quick_(options.quick),
      long_running_(options.long_running),
      files_(options.files),
      steps_({.max_threads = options.waiting_threads, .max_queued = options.max_waiting_calls}) {}

WorkerPool& CallRuntime::PoolOf(Lane lane) {
  switch (lane) {
    case Lane::kQuick:
      return quick_;
    case Lane::kLong:
      return long_running_;
    case Lane::kFiles:
      return files_;
    case Lane::kWaiting:
      break;
  }
  return steps_;
}

absl::Status CallRuntime::Submit(Lane lane, const std::string& tenant, std::function<void()> work) {
  if (PoolOf(lane).TrySubmit(work, tenant)) return absl::OkStatus();
  return RetryLater("QUEUE_FULL", "the server has as many calls as it can queue", absl::Seconds(1));
}

void CallRuntime::StopAccepting() {
  {
    absl::MutexLock lock(&mutex_);
    accepting_ = false;
    for (const auto& [call, how] : running_) {
      if (how.waits) call->Stop(Draining());
    }
  }
  gate_.RefuseAll(Draining(), /*begun=*/false);
}

bool CallRuntime::WaitUntilIdle(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithDeadline(absl::Condition(this, &CallRuntime::Idle), deadline);
}

void CallRuntime::StopRunning() {
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [call, how] : running_) call->Stop(Draining());
  }
  gate_.RefuseAll(Draining(), /*begun=*/true);
}

absl::Status CallRuntime::CheckCallsOf(const std::string& tenant) const {
  if (options_.tenants == nullptr) return absl::OkStatus();
  const int64_t most = options_.tenants->Of(tenant).max_calls;
  const auto calls = calls_of_.find(tenant);
  if (most == 0 || calls == calls_of_.end() || calls->second.running < most) {
    return absl::OkStatus();
  }
  return RetryLater("CALL_QUOTA",
                    absl::StrCat(calls->second.running, " of your calls run, the most that may is ",
                                 most, ": wait until one has ended"),
                    calls->second.ended.UntilNext(options_.clock->Now()));
}

absl::Status CallRuntime::CheckMayRunModels(const std::string& tenant) {
  {
    absl::MutexLock lock(&mutex_);
    if (!accepting_) return Draining();
  }
  return options_.may_run_models ? options_.may_run_models(tenant) : absl::OkStatus();
}

bool CallRuntime::MayWait(const std::string& tenant) const {
  const auto most = static_cast<int64_t>(options_.max_waiting_calls);
  const auto own = waiting_of_.find(tenant);
  return MayTakePlace(own == waiting_of_.end() ? 0 : own->second,
                      most - static_cast<int64_t>(waiting_), most / kTenantsWithFew);
}

absl::Status CallRuntime::Enter(CallContext* call, bool waits, bool bounded) {
  const bool counts = bounded && !waits;
  absl::MutexLock lock(&mutex_);
  if (!accepting_) return Draining();
  if (waits && !MayWait(call->tenant)) {
    return RetryLater("TOO_MANY_WAITING_CALLS",
                      absl::StrCat(waiting_,
                                   " calls wait on this server for something to happen, "
                                   "which is as many as may beside those of tenants with few"),
                      waits_ended_.UntilNext(options_.clock->Now()));
  }
  if (counts) {
    VS_RETURN_IF_ERROR(CheckCallsOf(call->tenant));
    Calls& calls = calls_of_[call->tenant];
    if (calls.running++ == 0) calls.ended.Begin(options_.clock->Now());
  }
  running_.emplace(call, Running{.waits = waits, .counts = counts});
  if (waits) {
    if (waiting_++ == 0) waits_ended_.Begin(options_.clock->Now());
    ++waiting_of_[call->tenant];
  }
  return absl::OkStatus();
}

void CallRuntime::Answered(CallContext* call) {
  absl::MutexLock lock(&mutex_);
  Uncount(call->tenant, running_.at(call));
}

void CallRuntime::Leave(CallContext* call) {
  absl::MutexLock lock(&mutex_);
  Running how = running_.extract(call).mapped();
  if (how.waits) {
    if (--waiting_ > 0) waits_ended_.Freed(options_.clock->Now());
    const auto own = waiting_of_.find(call->tenant);
    if (--own->second == 0) waiting_of_.erase(own);
  }
  Uncount(call->tenant, how);
}

void CallRuntime::Uncount(const std::string& tenant, Running& how) {
  if (!std::exchange(how.counts, false)) return;
  const auto calls = calls_of_.find(tenant);
  if (--calls->second.running == 0) {
    calls_of_.erase(calls);
  } else {
    calls->second.ended.Freed(options_.clock->Now());
  }
}

}  // namespace valuescope::rpc
