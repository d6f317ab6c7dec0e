// The durable queue in SQLite. Every function works inside the caller's transaction and throws
// SQLite::Exception; what each does is told in store/store.h.
//
// Invariants: only running and cancelling jobs hold leases; a cancelling job holds at least one; a
// job's shards_done and work_done are the sums over its steps.
#ifndef VALUESCOPE_STORE_SQLITE_JOBS_H_
#define VALUESCOPE_STORE_SQLITE_JOBS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/sqlite_database.h"
#include "store/sqlite_store.h"
#include "store/store.h"

namespace valuescope::store {

absl::StatusOr<Job> CreateJob(SqliteTransaction& transaction, const NewJob& job,
                              const IdempotencyKey& key);
absl::StatusOr<Job> GetJob(SqliteTransaction& transaction, absl::string_view tenant,
                           absl::string_view id);
absl::StatusOr<JobPage> ListJobs(SqliteTransaction& transaction, absl::string_view tenant,
                                 const JobFilter& filter, const Page& page);
absl::StatusOr<Job> RequestCancel(SqliteTransaction& transaction, absl::string_view tenant,
                                  absl::string_view id);
absl::StatusOr<Job> RetryJob(SqliteTransaction& transaction, absl::string_view tenant,
                             absl::string_view id, const IdempotencyKey& key);
absl::Status DeleteJob(SqliteTransaction& transaction, absl::string_view tenant,
                       absl::string_view id);

std::vector<WorkType> ListWork(SqliteTransaction& transaction);
absl::StatusOr<std::optional<Lease>> LeaseWork(SqliteTransaction& transaction,
                                               const LeaseRequest& request);
absl::StatusOr<ShardProgress> ReadProgress(SqliteTransaction& transaction, const Lease& lease,
                                           int64_t shard);
absl::Status ExtendLease(SqliteTransaction& transaction, const Lease& lease,
                         absl::Duration duration);
absl::Status CommitProgress(SqliteTransaction& transaction, const Lease& lease,
                            const ShardProgress& progress, bool done);
absl::Status CompleteJob(SqliteTransaction& transaction, const Lease& merge,
                         absl::string_view summary, std::vector<Resource> resources);
absl::Status FailJob(SqliteTransaction& transaction, const Lease& lease, const absl::Status& error);
absl::Status FailShard(SqliteTransaction& transaction, const Lease& lease,
                       const absl::Status& error, const SqliteStoreOptions& options);
absl::Status ReleaseLease(SqliteTransaction& transaction, const Lease& lease);

// Takes back the leases that expire at or before `expired_by`; ids of the jobs that changed.
std::vector<std::string> TakeBackLeases(SqliteTransaction& transaction, absl::Time expired_by,
                                        const SqliteStoreOptions& options);

std::vector<JobCount> CountJobs(SqliteTransaction& transaction);
int64_t TotalRescues(SqliteTransaction& transaction);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQLITE_JOBS_H_
