// How jobs end and steps are given back: changes of state that come from whoever asks, from
// workers, from parts of a job and from the clock alike. Each works inside the caller's
// transaction, which holds the lock of the job's row.
//
// States are written as numbers in SQL, because a statement's text is easier to check against the
// schema than a concatenation: jobs 1 queued, 2 running, 3 cancelling, 4 succeeded, 5 failed,
// 6 cancelled; steps 0 open, 1 leased, 2 done, 3 a merge whose shards are not done.
#ifndef VALUESCOPE_STORE_JOB_STATES_H_
#define VALUESCOPE_STORE_JOB_STATES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// Locks of a job's row: waits for whoever holds it, or passes it by.
inline constexpr char kChanging[] = " FOR UPDATE OF jobs";
inline constexpr char kChangingUnlessLocked[] = " FOR UPDATE SKIP LOCKED";
inline constexpr char kUnfinished[] = "(1, 2, 3)";

// Its row, of a job that is there.
int64_t SequenceOf(SqlTransaction& transaction, absl::string_view id);

// A leased step, which somebody else may take now.
void ReturnStep(SqlTransaction& transaction, int64_t job, int64_t shard);

// Ends a job in a state of the finished ones. Nobody holds a lease of it from now on.
void FinishJob(SqlTransaction& transaction, int64_t job, JobState state);

void FinishJobAsFailed(SqlTransaction& transaction, int64_t job, const JobError& error);

// Asks it to stop, with its parts.
void BeginCancelling(SqlTransaction& transaction, int64_t job);

// CANCELLING -> CANCELLED once the last lease has ended, and the last part.
bool FinishCancelling(SqlTransaction& transaction, int64_t job);

// Parts of a job in one of `states`, in the order in which they began.
std::vector<int64_t> ChildrenIn(SqlTransaction& transaction, int64_t job, absl::string_view states);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_JOB_STATES_H_
