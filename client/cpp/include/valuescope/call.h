// How a call may end early and when it is tried again.
#ifndef VALUESCOPE_CALL_H_
#define VALUESCOPE_CALL_H_

#include <memory>
#include <optional>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace valuescope {

namespace internal {
class Attempts;
}

// Tried again are only calls that can be repeated without harm (they only read or compute, or carry
// a request_id): after UNAVAILABLE, and after RESOURCE_EXHAUSTED where the server says when
// (RetryInfo or grpc-retry-pushback-ms). A stream is tried again only while it has delivered
// nothing.
struct RetryPolicy {
  int attempts = 8;  // calls in all, >= 1; 1 never tries again
  // The wait doubles from `first` up to `longest`; it is drawn from its upper half, so that clients
  // do not come back in step, and is never shorter than the server asks.
  absl::Duration first = absl::Milliseconds(100);
  absl::Duration longest = absl::Seconds(5);
  // A server that asks for a longer wait than this gets none: the error is returned, and its
  // details tell the wait.
  absl::Duration patience = absl::Seconds(60);
};

// The wait after the `failures`-th failure in a row (1 is the first), or nothing where the error is
// final. `random` in [0, 1).
std::optional<absl::Duration> RetryDelay(const RetryPolicy& policy, const absl::Status& status,
                                         int failures, double random);

// Time and chance as retries see them. Thread-safe. Tests bring their own.
class RetryClock {
 public:
  virtual ~RetryClock() = default;
  virtual absl::Time Now() = 0;
  // Returns after `duration`, or once `cancelled` is notified.
  virtual void Wait(absl::Duration duration, const absl::Notification& cancelled) = 0;
  virtual double Random() = 0;  // uniform in [0, 1)
};
std::shared_ptr<RetryClock> RealRetryClock();

// Ends calls from another thread: give one object to any number of calls.
//
//   CallOptions options;
//   options.cancellation = std::make_shared<Cancellation>();
//   std::thread other([cancellation = options.cancellation] { ...; cancellation->Cancel(); });
//   client.Generate(request, options);  // CANCELLED once Cancel was called, also while it waits to
//   try again
class Cancellation {
 public:
  // Ends the calls that run; those that start later fail at once. From any thread, any number of
  // times.
  void Cancel();

 private:
  friend class internal::Attempts;
  void Add(internal::Attempts* call);
  void Remove(internal::Attempts* call);

  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<internal::Attempts*> calls_ ABSL_GUARDED_BY(mutex_);
};

// Of one call.
struct CallOptions {
  // Retries and a stream's whole life included. Default the client's.
  std::optional<absl::Duration> timeout = std::nullopt;
  std::shared_ptr<Cancellation> cancellation = nullptr;
};

}  // namespace valuescope

#endif  // VALUESCOPE_CALL_H_
