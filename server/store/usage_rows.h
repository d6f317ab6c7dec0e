// What tenants used, as rows: one a tenant and hour. Functions work inside the caller's transaction
// and throw what the database throws; what each does is told in store/store.h.
#ifndef VALUESCOPE_STORE_USAGE_ROWS_H_
#define VALUESCOPE_STORE_USAGE_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

absl::Status AddUsage(SqlTransaction& transaction, const UsageBatch& batch);
// Worker time, which a transaction counts last.
void AddJobTime(SqlTransaction& transaction, absl::string_view tenant, absl::Duration worked);
absl::StatusOr<std::vector<TenantUsage>> QueryUsage(SqlTransaction& transaction,
                                                    const UsageQuery& query);
// Removes up to `most` hours that ended by `time`; how many.
int64_t ExpireUsage(SqlTransaction& transaction, absl::Time time, int64_t most);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_USAGE_ROWS_H_
