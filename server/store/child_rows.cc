#include "store/child_rows.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "store/job_rows.h"
#include "store/job_states.h"
#include "store/lease_rows.h"
#include "store/ready_queue.h"

namespace valuescope::store {

absl::StatusOr<Job> StartChild(SqlTransaction& transaction, const Lease& lease,
                               absl::string_view phase, const NewJob& job,
                               const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  const auto started = transaction.Query(
      "SELECT k.id FROM job_children c JOIN jobs k ON k.sequence = c.job"
      " WHERE c.parent = $1 AND c.phase = $2",
      step.job, phase);
  if (started->Next()) return GetJob(transaction, lease.tenant, started->Text(0));
  NewJob child = job;
  child.tenant = lease.tenant;
  child.priority = static_cast<int>(
      transaction.Integer("SELECT priority FROM jobs WHERE sequence = $1", step.job).value());
  VS_ASSIGN_OR_RETURN(const Job created, CreateJob(transaction, child, /*key=*/{}, tenants));
  transaction.Execute("INSERT INTO job_children (job, parent, phase) VALUES ($1, $2, $3)",
                      SequenceOf(transaction, created.id), step.job, phase);
  return GetJob(transaction, lease.tenant, created.id);
}

absl::Status AwaitChildren(SqlTransaction& transaction, const Lease& lease,
                           const ShardProgress& progress, int64_t ended, absl::Duration pause,
                           const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  // What another part came to since the shard looked is seen at once.
  const int64_t now_ended =
      transaction
          .Integer(
              "SELECT count(*) FROM job_children c JOIN jobs k ON k.sequence = c.job"
              " WHERE c.parent = $1 AND k.state IN (4, 5, 6)",
              step.job)
          .value();
  const absl::Time not_before = now_ended == ended ? transaction.now() + pause : absl::UnixEpoch();
  VS_RETURN_IF_ERROR(CommitProgress(transaction, lease, progress, /*done=*/false, tenants));
  transaction.Execute("UPDATE steps SET not_before = $1 WHERE job = $2 AND shard = $3", not_before,
                      step.job, lease.shard);
  ReturnStep(transaction, step.job, lease.shard);
  return absl::OkStatus();
}

std::optional<std::string> ParentOfFinished(SqlTransaction& transaction, absl::string_view id) {
  const auto row = transaction.Query(
      "SELECT p.id FROM jobs k JOIN job_children c ON c.job = k.sequence"
      " JOIN jobs p ON p.sequence = c.parent WHERE k.id = $1 AND k.state IN (4, 5, 6)",
      id);
  if (!row->Next()) return std::nullopt;
  return row->Text(0);
}

void ChildEnded(SqlTransaction& transaction, absl::string_view parent) {
  const std::optional<int64_t> job = transaction.Integer(
      absl::StrCat("SELECT sequence FROM jobs WHERE id = $1 AND state IN (2, 3)",
                   transaction.Locking(kChanging)),
      parent);
  if (!job) return;
  transaction.Execute(
      "UPDATE steps SET not_before = 0 WHERE job = $1 AND state = 0 AND failures = 0", *job);
  UpdateReadiness(transaction, *job);
  FinishCancelling(transaction, *job);
}

std::vector<std::string> FinishStoppedParents(SqlTransaction& transaction) {
  std::vector<std::pair<int64_t, std::string>> cancelling;
  const auto rows = transaction.Query(
      absl::StrCat("SELECT j.sequence, j.id FROM jobs j WHERE j.state = 3"
                   " AND EXISTS (SELECT 1 FROM job_children c WHERE c.parent = j.sequence)",
                   transaction.Locking(" FOR UPDATE OF j SKIP LOCKED")));
  while (rows->Next()) cancelling.emplace_back(rows->Integer(0), rows->Text(1));
  std::vector<std::string> finished;
  for (auto& [job, id] : cancelling) {
    if (FinishCancelling(transaction, job)) finished.push_back(std::move(id));
  }
  return finished;
}

}  // namespace valuescope::store
