// A one-way flag that the owner of work raises and the work polls between steps. Shared by value;
// thread-safe.
#ifndef VALUESCOPE_BASE_CANCELLATION_H_
#define VALUESCOPE_BASE_CANCELLATION_H_

#include <atomic>
#include <memory>

#include "absl/status/status.h"
#include "base/error.h"

namespace valuescope {

class Cancellation {
 public:
  void Cancel() { flag_->store(true, std::memory_order_release); }
  bool cancelled() const { return flag_->load(std::memory_order_acquire); }

 private:
  std::shared_ptr<std::atomic<bool>> flag_ = std::make_shared<std::atomic<bool>>(false);
};

// CANCELLED where the work was cancelled.
inline absl::Status CheckGoesOn(const Cancellation& cancellation) {
  if (!cancellation.cancelled()) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kCancelled, "CANCELLED", "the work was cancelled");
}

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_CANCELLATION_H_
