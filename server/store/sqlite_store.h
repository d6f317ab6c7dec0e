// The embedded store: one SQLite file, one server. WAL with synchronous FULL, so that what was
// answered survives a power cut.
#ifndef VALUESCOPE_STORE_SQLITE_STORE_H_
#define VALUESCOPE_STORE_SQLITE_STORE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/tenant_policy.h"
#include "store/store.h"

namespace valuescope::store {

struct SqliteStoreOptions {
  RetryPolicy retry;
  // Outlives the store. By default a system's clock that is set while the store is open is followed
  // when it is opened again: leases and pauses are lengths of time.
  const Clock* clock = &Clock::Steady();
  std::shared_ptr<const TenantPolicySource> tenants = nullptr;  // null: what all have by default
};

// Opens or makes the database at `path` and holds it for this process alone: a second opening gets
// FAILED_PRECONDITION (reason STORE_IN_USE), and leases found in the file belong to a dead process,
// so they are taken back at once, as Sweep does with those that ran out. A database of an earlier
// format is brought to the present one, which older servers then refuse.
// Errors: FAILED_PRECONDITION with reason STORE_TOO_NEW (made by a newer version), NOT_A_STORE (the
// file is another application's database) or NETWORK_FILE_SYSTEM (locks cannot be trusted there);
// UNAVAILABLE where the file cannot be opened; DATA_LOSS where it is damaged.
absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const std::string& path,
                                                       const SqliteStoreOptions& options = {});

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQLITE_STORE_H_
