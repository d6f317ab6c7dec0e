// What a handler knows of the call it answers.
#ifndef VALUESCOPE_RPC_CALL_CONTEXT_H_
#define VALUESCOPE_RPC_CALL_CONTEXT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/memory_ledger.h"
#include "rpc/caller.h"

namespace valuescope::rpc {

// Thread-safe. Fields are set before the handler starts and do not change.
class CallContext {
 public:
  CallContext() = default;
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  std::string tenant;  // owner of whatever the call makes or may see
  Role role = Role::kReader;
  std::string request_id;   // x-request-id, the client's or a fresh one
  std::string traceparent;  // W3C trace context as sent; empty if none
  absl::Time received = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();
  // Raised when the client leaves, the deadline passes or the server's drain runs out of patience.
  // Long handlers look at it between steps and return Why().
  Cancellation cancellation;

  // What all calls hold together of their messages and of what they make of them; null: nothing
  // bounds it. Outlives the call.
  MemoryLedger* memory = nullptr;
  // Whether a handler has a thread that may wait, which it does once it runs on such a lane.
  bool may_wait = false;

  // Takes `bytes` >= 0 of it before they are allocated, and keeps them until the call is over.
  // Errors of MemoryLedger::Take, and then nothing is taken. By one thread at a time, the handler's
  // once it runs. Where the call `may_wait`, it may take a few seconds; why the call was stopped
  // meanwhile.
  absl::Status Hold(int64_t bytes) const;
  // Gives `bytes` of it back early.
  void GiveBack(int64_t bytes) const;
  int64_t held() const { return held_ == nullptr ? 0 : held_->bytes(); }

  // Why the call was stopped: CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE (DRAINING); OK while it
  // runs.
  absl::Status Why() const;

  // Raises `cancellation`, and calls the callbacks. Only the first reason counts.
  void Stop(absl::Status why);

 private:
  friend class StopCallback;

  mutable std::shared_ptr<MemoryLedger::Lease> held_;
  mutable absl::Mutex mutex_;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
  int64_t last_callback_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int64_t, std::function<void()>> callbacks_ ABSL_GUARDED_BY(mutex_);
};

// For handlers that wait instead of polling: calls `callback` once if the call is stopped, at once
// if it already was, never after the destructor. It runs on gRPC's threads, so it must not block,
// and must not make or destroy a StopCallback of the same call.
//
//   StopCallback stop(&context, [&] { running->Cancel(); });
class StopCallback {
 public:
  StopCallback(const CallContext* context, std::function<void()> callback);
  ~StopCallback();
  StopCallback(const StopCallback&) = delete;
  StopCallback& operator=(const StopCallback&) = delete;

 private:
  CallContext* const context_;
  int64_t id_ = 0;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_CALL_CONTEXT_H_
