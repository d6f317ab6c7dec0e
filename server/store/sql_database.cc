#include "store/sql_database.h"

#include <new>

#include "base/error.h"

namespace valuescope::store {

absl::Status StatusOfException(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return RetryLater("OUT_OF_MEMORY", "the machine has no memory for what is asked of the store",
                      absl::Seconds(1));
  }
  return ErrorWithReason(absl::StatusCode::kInternal, "STORE_FAILED",
                         "the store failed: an exception ended the transaction");
}

}  // namespace valuescope::store
