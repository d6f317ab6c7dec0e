// The store that several servers share: a database in PostgreSQL, 13 or later. They lease the
// shards of one job between them. Times are the database's, so their clocks need not agree.
#ifndef VALUESCOPE_STORE_POSTGRES_STORE_H_
#define VALUESCOPE_STORE_POSTGRES_STORE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/tenant_policy.h"
#include "store/store.h"

namespace valuescope::store {

// Opens the database at `url` (postgresql://...), and makes its tables or brings them to the
// present format where they are not yet. Those of a newer version are used as they are where that
// says so (store/postgres_tables.h). A password comes from libpq's environment or files
// (PGPASSFILE, PGPASSWORD, ~/.pgpass). Leases of a server that died run out by themselves.
//
// Where the database goes away later, a call waits for it for some seconds and then is UNAVAILABLE
// (reason STORE_UNREACHABLE), with nothing done, or, where its message says so, perhaps all of it.
//
// Errors: UNAVAILABLE where it cannot be reached, with what libpq says; FAILED_PRECONDITION with
// reason STORE_TOO_NEW (made by a newer version, which this one cannot work beside), NOT_A_STORE
// (it has tables of another application), STORE_FORBIDDEN (its user may not make tables) or
// STORE_UNSUITABLE (too old, or not in UTF-8). `tenants` may be null: all have what tenants have by
// default.
absl::StatusOr<std::unique_ptr<Store>> OpenPostgresStore(
    const std::string& url, const RetryPolicy& retry = {},
    std::shared_ptr<const TenantPolicySource> tenants = nullptr);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_POSTGRES_STORE_H_
