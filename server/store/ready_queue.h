// Which job is next. Jobs of one tenant, kind and needs stand in one line, ordered by priority and
// age; those of them that have a step to lease are an index (jobs_ready), which is kept with each
// change of a step. So choosing looks at the head of each line, and never at the jobs behind it.
// Functions work inside the caller's transaction and throw what the database throws.
#ifndef VALUESCOPE_STORE_READY_QUEUE_H_
#define VALUESCOPE_STORE_READY_QUEUE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/tenant_policy.h"
#include "store/fair_turns.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// The number of the line, which is made where there is none.
int64_t LineOf(SqlTransaction& transaction, absl::string_view tenant, absl::string_view kind,
               absl::string_view needs);

// The kinds and needs of the lines in which a job is queued or running.
std::vector<WorkType> ListWork(SqlTransaction& transaction);

// A line with something to lease, as it is at its head.
struct ReadyLine {
  int64_t line = 0;
  std::string tenant;
  int64_t priority = 0;
  int64_t job = 0;       // sequence number
  absl::Duration start;  // see StartOf
  Turn turn;             // of the tenant
};

// The lines of work that can be run, in the order in which they are to be served. Without those of
// tenants that run as much as they may. `instead_of`: a lease that might be given back; then it is
// as if it were, and jobs that somebody runs do not count. Null for none.
std::vector<ReadyLine> LinesInTurn(SqlTransaction& transaction,
                                   const std::vector<WorkType>& can_run,
                                   const TenantPolicies& tenants,
                                   const Lease* instead_of = nullptr);

// Ready jobs of a line behind its head, the next one first. As many as are worth a try: of a job
// whose steps others are taking just now, none is left.
std::vector<int64_t> ReadyJobsBehind(SqlTransaction& transaction, const ReadyLine& line);

// What ready_at of the job with the sequence number $1 is to be.
#define READY_AT_OF_FIRST                                                                     \
  "CASE WHEN state NOT IN (1, 2) THEN NULL"                                                   \
  " WHEN EXISTS (SELECT 1 FROM steps WHERE job = $1 AND state = 0 AND not_before = 0) THEN 0" \
  " WHEN EXISTS (SELECT 1 FROM steps WHERE job = $1 AND state = 0)"                           \
  " THEN (SELECT min(not_before) FROM steps WHERE job = $1 AND state = 0) END"

// To be called after steps of the job, or its state, have changed.
void UpdateReadiness(SqlTransaction& transaction, int64_t job);

// True where something else than the leased job should have its worker, once that gave it back: a
// ready job that nobody runs, of a tenant that is then to be served first, or of the same tenant
// and of higher priority. `worked` on the lease was not told to the store yet.
bool OthersWait(SqlTransaction& transaction, const Lease& lease,
                const std::vector<WorkType>& can_run, const TenantPolicies& tenants);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_READY_QUEUE_H_
