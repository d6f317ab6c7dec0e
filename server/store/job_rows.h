// The durable queue as rows. Every function works inside the caller's transaction and throws what
// the database throws; what each does is told in store/store.h.
//
// Whoever changes a job or one of its steps locks the job's row first and looks at its state behind
// that, so that of two transactions that meet the second sees what the first did.
//
// Invariants: only running and cancelling jobs hold leases; a cancelling job holds at least one; a
// job's shards_done and work_done are the sums over its steps, and its ready_at is the first
// not_before of those that are open, where it is queued or running (UpdateReadiness). A transaction
// locks a tenant's row last.
#ifndef VALUESCOPE_STORE_JOB_ROWS_H_
#define VALUESCOPE_STORE_JOB_ROWS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/tenant_policy.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// Of a row of jobs, in the order in which ReadJob takes them.
inline constexpr char kJobColumns[] =
    "sequence, tenant, id, kind, display_name, priority, state, created_at, started_at, "
    "finished_at, error_code, error_reason, error_message, error_shard, num_shards, shards_done, "
    "total_work, work_done, rescues, attempts, metadata, needs, "
    "(SELECT revision FROM job_revisions WHERE job_revisions.job = sequence), "
    "(SELECT p.id FROM job_children c JOIN jobs p ON p.sequence = c.parent"
    " WHERE c.job = jobs.sequence), "
    "(SELECT c.phase FROM job_children c WHERE c.job = jobs.sequence), "
    "(SELECT count(*) FROM job_children c WHERE c.parent = jobs.sequence)";
inline constexpr int kNumJobColumns = 26;
// And where they stand.
inline constexpr char kJobsWithPayloads[] =
    "jobs JOIN job_payloads ON job_payloads.job = jobs.sequence";

// Without what lists leave out.
Job ReadJob(SqlRows& row);

absl::StatusOr<Job> CreateJob(SqlTransaction& transaction, const NewJob& job,
                              const IdempotencyKey& key, const TenantPolicies& tenants);
// `lock`: of the row; empty for none.
absl::StatusOr<Job> GetJob(SqlTransaction& transaction, absl::string_view tenant,
                           absl::string_view id, absl::string_view lock = "");
absl::StatusOr<Job> RequestCancel(SqlTransaction& transaction, absl::string_view tenant,
                                  absl::string_view id);
absl::StatusOr<Job> RetryJob(SqlTransaction& transaction, absl::string_view tenant,
                             absl::string_view id, const IdempotencyKey& key,
                             const TenantPolicies& tenants);
absl::Status DeleteJob(SqlTransaction& transaction, absl::string_view tenant, absl::string_view id);

std::vector<JobCount> CountJobs(SqlTransaction& transaction);
int64_t TotalRescues(SqlTransaction& transaction);
QueueAges MeasureAges(SqlTransaction& transaction);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_JOB_ROWS_H_
