// What a handler knows of the call it answers.
#ifndef VALUESCOPE_RPC_CALL_CONTEXT_H_
#define VALUESCOPE_RPC_CALL_CONTEXT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cancellation.h"

namespace valuescope::rpc {

// Thread-safe. Fields are set before the handler starts and do not change.
class CallContext {
 public:
  CallContext() = default;
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  std::string tenant;       // owner of whatever the call makes or may see
  std::string request_id;   // x-request-id, the client's or a fresh one
  std::string traceparent;  // W3C trace context as sent; empty if none
  absl::Time received = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();
  // Raised when the client leaves, the deadline passes or the server's drain runs out of patience.
  // Long handlers look at it between steps and return Why().
  Cancellation cancellation;

  // Why the call was stopped: CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE (DRAINING); OK while it
  // runs.
  absl::Status Why() const;

  // Raises `cancellation`, and calls the callbacks. Only the first reason counts.
  void Stop(absl::Status why);

 private:
  friend class StopCallback;

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
