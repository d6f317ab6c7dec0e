#include "services/call_memory.h"

#include "base/status_macros.h"

namespace valuescope::services {

absl::Status CallMemory::Add(int64_t bytes) {
  if (lease_ != nullptr && lease_->Grow(bytes)) return absl::OkStatus();
  // The engine knows whether so much could ever be had.
  const int64_t held = lease_ == nullptr ? 0 : lease_->bytes();
  VS_ASSIGN_OR_RETURN(lease_, engine_->TakeRequestMemory(held + bytes));
  return absl::OkStatus();
}

}  // namespace valuescope::services
