// Jobs that are parts of others, as rows of job_children; what each function does is told in
// store/store.h. Whoever locks both locks the parent first.
#ifndef VALUESCOPE_STORE_CHILD_ROWS_H_
#define VALUESCOPE_STORE_CHILD_ROWS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/tenant_policy.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

absl::StatusOr<Job> StartChild(SqlTransaction& transaction, const Lease& lease,
                               absl::string_view phase, const NewJob& job,
                               const TenantPolicies& tenants);
absl::Status AwaitChildren(SqlTransaction& transaction, const Lease& lease,
                           const ShardProgress& progress, int64_t ended, absl::Duration pause,
                           const TenantPolicies& tenants);
// The id of the job that a finished one is a part of; nullopt where it is of none or not finished.
std::optional<std::string> ParentOfFinished(SqlTransaction& transaction, absl::string_view id);
// A part of that job has ended. Apart from the transaction that ended it, which had locked the part
// first; where it never comes, the pause of AwaitChildren ends, and FinishStoppedParents is called.
void ChildEnded(SqlTransaction& transaction, absl::string_view parent);
// Cancelling jobs whose parts have all stopped; their ids.
std::vector<std::string> FinishStoppedParents(SqlTransaction& transaction);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_CHILD_ROWS_H_
