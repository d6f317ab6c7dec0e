#include "store/job_states.h"

#include "absl/strings/str_cat.h"
#include "store/ready_queue.h"

namespace valuescope::store {
namespace {

static_assert(static_cast<int>(JobState::kQueued) == 1 &&
              static_cast<int>(JobState::kRunning) == 2 &&
              static_cast<int>(JobState::kCancelling) == 3 &&
              static_cast<int>(JobState::kSucceeded) == 4 &&
              static_cast<int>(JobState::kFailed) == 5 &&
              static_cast<int>(JobState::kCancelled) == 6);

// The state of a step that is given back: a merge waits where a shard is to be done again.
constexpr char kStateWithoutLease[] =
    "CASE WHEN shard = -1 AND EXISTS (SELECT 1 FROM jobs WHERE sequence = steps.job"
    " AND shards_done < num_shards) THEN 3 ELSE 0 END";

}  // namespace

int64_t SequenceOf(SqlTransaction& transaction, absl::string_view id) {
  return transaction.Integer("SELECT sequence FROM jobs WHERE id = $1", id).value();
}

void ReturnStep(SqlTransaction& transaction, int64_t job, int64_t shard) {
  transaction.Execute(
      absl::StrCat("UPDATE steps SET state = ", kStateWithoutLease,
                   ", token = NULL, expires_at = NULL WHERE job = $1 AND shard = $2"),
      job, shard);
  UpdateReadiness(transaction, job);
}

void FinishJob(SqlTransaction& transaction, int64_t job, JobState state) {
  transaction.Execute(
      "UPDATE jobs SET state = $1, finished_at = $2, ready_at = NULL WHERE sequence = $3",
      static_cast<int64_t>(state), transaction.now(), job);
  transaction.Execute(
      absl::StrCat("UPDATE steps SET state = ", kStateWithoutLease,
                   ", token = NULL, expires_at = NULL WHERE job = $1 AND state = 1"),
      job);
}

void FinishJobAsFailed(SqlTransaction& transaction, int64_t job, const JobError& error) {
  FinishJob(transaction, job, JobState::kFailed);
  transaction.Execute(
      "UPDATE jobs SET error_code = $1, error_reason = $2, error_message = $3, error_shard = $4"
      " WHERE sequence = $5",
      static_cast<int64_t>(error.code), error.reason, error.message, error.shard, job);
  // Nobody waits for its parts any more.
  for (const int64_t child : ChildrenIn(transaction, job, kUnfinished)) {
    BeginCancelling(transaction, child);
  }
}

void BeginCancelling(SqlTransaction& transaction, int64_t job) {
  transaction.Execute(
      "UPDATE jobs SET state = 3, ready_at = NULL WHERE sequence = $1 AND state IN (1, 2)", job);
  for (const int64_t child : ChildrenIn(transaction, job, kUnfinished)) {
    BeginCancelling(transaction, child);
  }
  FinishCancelling(transaction, job);
}

bool FinishCancelling(SqlTransaction& transaction, int64_t job) {
  const bool stoppable =
      transaction
          .Integer(
              "SELECT 1 FROM jobs WHERE sequence = $1 AND state = 3"
              " AND NOT EXISTS (SELECT 1 FROM steps WHERE job = $1 AND state = 1)"
              " AND NOT EXISTS (SELECT 1 FROM job_children c JOIN jobs k ON k.sequence = c.job"
              "   WHERE c.parent = $1 AND k.state IN (1, 2, 3))",
              job)
          .has_value();
  if (stoppable) FinishJob(transaction, job, JobState::kCancelled);
  return stoppable;
}

std::vector<int64_t> ChildrenIn(SqlTransaction& transaction, int64_t job,
                                absl::string_view states) {
  std::vector<int64_t> children;
  const auto rows = transaction.Query(
      absl::StrCat("SELECT k.sequence FROM jobs k JOIN job_children c ON c.job = k.sequence"
                   " WHERE c.parent = $1 AND k.state IN ",
                   states, " ORDER BY k.sequence", transaction.Locking(" FOR UPDATE OF k")),
      job);
  while (rows->Next()) children.push_back(rows->Integer(0));
  return children;
}

}  // namespace valuescope::store
