// Cancellation for whoever takes no part in the work that he does a small thing for, and may take
// long to do it, such as a store far away.
#ifndef VALUESCOPE_BASE_THREAD_CANCELLATION_H_
#define VALUESCOPE_BASE_THREAD_CANCELLATION_H_

#include <utility>

#include "absl/status/status.h"
#include "base/cancellation.h"

namespace valuescope {

// While it lives, what the thread asks of others is part of work that is cancelled so: once that is
// raised they give up, with CANCELLED.
class ThreadCancellation {
 public:
  explicit ThreadCancellation(Cancellation cancellation)
      : cancellation_(std::move(cancellation)), outer_(std::exchange(current_, this)) {}
  ~ThreadCancellation() { current_ = outer_; }
  ThreadCancellation(const ThreadCancellation&) = delete;
  ThreadCancellation& operator=(const ThreadCancellation&) = delete;

  // CANCELLED where the work of this thread was cancelled.
  static absl::Status CheckGoesOn() {
    return current_ == nullptr ? absl::OkStatus()
                               : valuescope::CheckGoesOn(current_->cancellation_);
  }

 private:
  static inline thread_local const ThreadCancellation* current_ = nullptr;

  const Cancellation cancellation_;
  const ThreadCancellation* const outer_;
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_THREAD_CANCELLATION_H_
