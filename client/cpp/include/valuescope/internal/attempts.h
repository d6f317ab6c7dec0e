// The attempts of one call, for Client and Stream alone: deadline, retries, cancellation.
#ifndef VALUESCOPE_INTERNAL_ATTEMPTS_H_
#define VALUESCOPE_INTERNAL_ATTEMPTS_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "valuescope/call.h"

namespace valuescope::internal {

// Used by one thread; Cancel by any.
//
//   do { status = attempts.End(stub.Method(attempts.Begin(), ...)); } while
//   (attempts.Again(&status));
class Attempts {
 public:
  struct Settings {
    RetryPolicy retry;
    std::shared_ptr<RetryClock> clock;
    std::string token;       // bearer token; empty sends none
    std::string token_file;  // file of it, read for each attempt; empty: there is none
    std::string model;       // that the request names, which gateways route by; empty: none
    absl::Duration timeout;
    std::shared_ptr<Cancellation> cancellation;  // may be null
    bool repeatable = false;
  };
  explicit Attempts(Settings settings);
  ~Attempts();
  Attempts(const Attempts&) = delete;
  Attempts& operator=(const Attempts&) = delete;

  // The context of the next attempt, valid until the next Begin. What used the last one must be
  // gone.
  grpc::ClientContext* Begin();

  // What an attempt came to, with all that the server said about it.
  absl::Status End(const grpc::Status& status);

  // Waits and returns true where the call should be tried again. Makes `status` CANCELLED where it
  // was cancelled meanwhile.
  bool Again(absl::Status* status);

  // The call got further: failures are counted from here on.
  void Progressed() { failures_ = 0; }

  void Cancel();

 private:
  void AddToken() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Settings settings_;
  const absl::Time deadline_;
  int failures_ = 0;
  absl::Notification cancelled_;  // notified under mutex_
  absl::Mutex mutex_;
  std::unique_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mutex_);
  absl::Status unsent_ ABSL_GUARDED_BY(mutex_);  // why this attempt was not made
};

}  // namespace valuescope::internal

#endif  // VALUESCOPE_INTERNAL_ATTEMPTS_H_
