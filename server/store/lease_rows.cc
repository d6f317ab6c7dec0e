#include "store/lease_rows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "store/job_states.h"
#include "store/partial_rows.h"
#include "store/ready_queue.h"
#include "store/resource_rows.h"
#include "store/step_blobs.h"
#include "store/tenant_rows.h"

namespace valuescope::store {
namespace {

constexpr absl::Duration kMaxBackoff = absl::Minutes(5);

void AddObserved(SqlTransaction& transaction, int64_t job, const std::vector<Observed>& observed) {
  for (const Observed& one : observed) {
    transaction.Execute(
        "INSERT INTO job_observed VALUES ($1, $2, $3, $4, $5) ON CONFLICT (job, name) DO UPDATE"
        " SET count = job_observed.count + excluded.count, sum = job_observed.sum + excluded.sum,"
        " sum_of_squares = job_observed.sum_of_squares + excluded.sum_of_squares",
        job, one.name, one.count, one.sum, one.sum_of_squares);
  }
}

absl::Status LeaseLost() {
  return ErrorWithReason(absl::StatusCode::kAborted, "LEASE_LOST",
                         "the lease was taken back or the job is not running any more");
}

JobError MakeJobError(const absl::Status& status, int64_t shard) {
  JobError error{.code = status.code(),
                 .reason = DetailsOf(status).reason,
                 .message = std::string(status.message()),
                 .shard = std::nullopt};
  if (error.reason.empty()) error.reason = absl::StatusCodeToString(status.code());
  if (shard != kMergeStep) error.shard = shard;
  return error;
}

// An infrastructure failure of a leased step: back to pending after a pause, or the end of the job.
void CountFailure(SqlTransaction& transaction, int64_t job, int64_t shard, int64_t failures,
                  const JobError& error, const RetryPolicy& policy) {
  ReturnStep(transaction, job, shard);
  const int64_t now_failed = failures + 1;
  if (now_failed >= policy.max_shard_failures) {
    FinishJobAsFailed(transaction, job, error);
    return;
  }
  const int64_t doublings = std::min<int64_t>(failures, 16);
  const absl::Duration pause =
      std::min(policy.failure_backoff * (int64_t{1} << doublings), kMaxBackoff);
  transaction.Execute(
      "UPDATE steps SET failures = $1, not_before = $2 WHERE job = $3 AND shard = $4", now_failed,
      transaction.now() + pause, job, shard);
  UpdateReadiness(transaction, job);
}

// The lowest ready step of a job, as a lease that is still to be written; nullopt where there is
// none, or the job is to be run no more. `lock`: of the job's row, which comes before its steps:
// one that was free when it was looked for, and is locked when it is free no more, would stay so.
std::optional<Lease> TakeStep(SqlTransaction& transaction, int64_t job, absl::string_view lock) {
  const auto row =
      transaction.Query(absl::StrCat("SELECT tenant, id, kind, num_shards,"
                                     " (SELECT p.id FROM job_children c JOIN jobs p"
                                     "   ON p.sequence = c.parent WHERE c.job = jobs.sequence)"
                                     " FROM jobs WHERE sequence = $1 AND state IN (1, 2)",
                                     transaction.Locking(lock)),
                        job);
  const auto step = transaction.Query(
      "SELECT shard, failures, EXISTS (SELECT 1 FROM step_results r WHERE r.job = s.job"
      "   AND r.shard = s.shard) FROM steps s"
      " WHERE job = $1 AND state = 0 AND not_before <= $2 ORDER BY shard LIMIT 1",
      job, transaction.now());
  if (!row->Next() || !step->Next()) return std::nullopt;
  const int64_t shard = step->Integer(0), failures = step->Integer(1);
  return Lease{.tenant = row->Text(0),
               .job_id = row->Text(1),
               .kind = row->Text(2),
               .spec = "",
               .shard = shard,
               .token = NewUuid(),
               .expires_at = {},
               .num_shards = row->Integer(3),
               .failures = failures,
               .begun = step->Integer(2) != 0,
               .parent_id = row->IsNull(4) ? "" : row->Text(4),
               .worked = absl::ZeroDuration()};
}

void WriteLease(SqlTransaction& transaction, int64_t job, const Lease& lease) {
  transaction.Execute(
      "UPDATE steps SET state = 1, token = $1, expires_at = $2 WHERE job = $3 AND shard = $4",
      lease.token, lease.expires_at, job, lease.shard);
  // It was queued or running.
  transaction.Execute(
      "UPDATE jobs SET state = 2, started_at = coalesce(started_at, $2),"
      " ready_at = " READY_AT_OF_FIRST " WHERE sequence = $1",
      job, transaction.now());
}

// A step of the job, which stands in the line, as a lease, written.
std::optional<Lease> LeaseStep(SqlTransaction& transaction, const ReadyLine& line, int64_t job,
                               absl::string_view lock, absl::Duration duration,
                               const TenantPolicies& tenants) {
  std::optional<Lease> lease = TakeStep(transaction, job, lock);
  if (!lease || IsAtItsBound(transaction, line.tenant, tenants)) return std::nullopt;
  lease->expires_at = transaction.now() + duration;
  WriteLease(transaction, job, *lease);
  TakeTurn(transaction, line.tenant, line.start);
  return lease;
}

// `lock`: of the first job that is tried.
std::optional<Lease> LeaseFrom(SqlTransaction& transaction, const ReadyLine& line,
                               absl::string_view lock, absl::Duration duration,
                               const TenantPolicies& tenants) {
  std::optional<Lease> lease = LeaseStep(transaction, line, line.job, lock, duration, tenants);
  if (lease) return lease;
  for (const int64_t job : ReadyJobsBehind(transaction, line)) {
    lease = LeaseStep(transaction, line, job, kChangingUnlessLocked, duration, tenants);
    if (lease) return lease;
  }
  return std::nullopt;
}

// Where the last shard is done.
void OpenMerge(SqlTransaction& transaction, int64_t job) {
  transaction.Execute("UPDATE steps SET state = 0 WHERE job = $1 AND shard = $2", job, kMergeStep);
  UpdateReadiness(transaction, job);
}

}  // namespace

absl::StatusOr<HeldStep> CheckLease(SqlTransaction& transaction, const Lease& lease,
                                    absl::string_view states, absl::string_view lock) {
  const auto row = transaction.Query(
      absl::StrCat("SELECT j.sequence, s.failures, s.work_done, j.num_shards - j.shards_done,"
                   " (SELECT 1 FROM step_results r WHERE r.job = s.job AND r.shard = s.shard"
                   "   AND r.partial_blob <> '')"
                   " FROM jobs j JOIN steps s ON s.job = j.sequence"
                   " WHERE j.id = $1 AND j.state IN ",
                   states, " AND s.shard = $2 AND s.state = 1 AND s.token = $3",
                   transaction.Locking(lock)),
      lease.job_id, lease.shard, lease.token);
  if (!row->Next()) return LeaseLost();
  return HeldStep{.job = row->Integer(0),
                  .failures = row->Integer(1),
                  .work_done = row->Integer(2),
                  .shards_left = row->Integer(3),
                  .has_blob = !row->IsNull(4)};
}

std::optional<Lease> LeaseWork(SqlTransaction& transaction, const LeaseRequest& request,
                               const TenantPolicies& tenants) {
  // Whoever holds the rows of other jobs waits for nobody.
  absl::string_view lock = kChanging;
  for (const ReadyLine& line : LinesInTurn(transaction, request.can_run, tenants)) {
    std::optional<Lease> lease = LeaseFrom(transaction, line, lock, request.duration, tenants);
    if (lease) return lease;
    lock = kChangingUnlessLocked;
  }
  return std::nullopt;
}

std::optional<std::string> ReadSpec(SqlTransaction& transaction, absl::string_view job_id) {
  const auto row = transaction.Query(
      "SELECT spec FROM job_payloads JOIN jobs ON sequence = job WHERE id = $1", job_id);
  if (!row->Next()) return std::nullopt;
  return row->Text(0);
}

absl::StatusOr<ShardProgress> ReadProgress(SqlTransaction& transaction, const Lease& lease,
                                           int64_t shard) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease, kRunning, /*lock=*/""));
  const auto row = transaction.Query(
      "SELECT s.work_done, r.cursor, r.partial, r.partial_blob, r.partial_size FROM steps s"
      " LEFT JOIN step_results r ON r.job = s.job AND r.shard = s.shard"
      " WHERE s.job = $1 AND s.shard = $2",
      step.job, shard);
  if (!row->Next()) {
    return OutOfRange("shard", static_cast<double>(shard), 0,
                      static_cast<double>(lease.num_shards - 1));
  }
  ShardProgress progress{.partial = "", .cursor = "", .work_done = row->Integer(0)};
  if (row->IsNull(1)) return progress;
  progress.cursor = row->Text(1);
  progress.partial = row->Text(2);
  progress.partial_blob = {.digest = row->Text(3), .size = row->Integer(4)};
  return progress;
}

absl::Status ExtendLease(SqlTransaction& transaction, const Lease& lease, absl::Duration duration) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  transaction.Execute("UPDATE steps SET expires_at = $1 WHERE job = $2 AND shard = $3",
                      transaction.now() + duration, step.job, lease.shard);
  return absl::OkStatus();
}

absl::Status CommitProgress(SqlTransaction& transaction, const Lease& lease,
                            const ShardProgress& progress, bool done,
                            const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const HeldStep step,
                      CheckLease(transaction, lease, done ? kRunning : kRunningOrCancelling));
  if (step.has_blob) DropPartial(transaction, step.job, lease.shard);
  WriteResult(transaction, step.job, lease.shard, progress);
  VS_RETURN_IF_ERROR(NameStepBlobs(transaction, step.job, lease.shard, progress.blobs));
  transaction.Execute(absl::StrCat("UPDATE steps SET work_done = $1, failures = 0",
                                   done ? ", state = 2, token = NULL, expires_at = NULL" : "",
                                   " WHERE job = $2 AND shard = $3"),
                      progress.work_done, step.job, lease.shard);
  transaction.Execute(
      "UPDATE jobs SET work_done = work_done + $1, shards_done = shards_done + $2"
      " WHERE sequence = $3",
      progress.work_done - step.work_done, int64_t{done}, step.job);
  if (done && step.shards_left == 1) OpenMerge(transaction, step.job);
  AddObserved(transaction, step.job, progress.observed);
  Charge(transaction, lease.tenant, lease.worked, tenants);
  return absl::OkStatus();
}

absl::Status CompleteJob(SqlTransaction& transaction, const Lease& merge, absl::string_view summary,
                         const std::vector<Resource>& resources, const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, merge));
  for (Resource resource : resources) {
    resource.tenant = merge.tenant;
    resource.job_id = merge.job_id;
    VS_RETURN_IF_ERROR(CheckResource(resource));
    VS_RETURN_IF_ERROR(PutResource(transaction, std::move(resource), tenants).status());
  }
  const std::string result(summary);
  transaction.Execute("UPDATE job_payloads SET result = $1 WHERE job = $2", Bytes{result},
                      step.job);
  FinishJob(transaction, step.job, JobState::kSucceeded);
  // The artifacts replace the partial results, and name the blobs that those named.
  DropPartials(transaction, step.job);
  transaction.Execute("DELETE FROM steps WHERE job = $1", step.job);
  Charge(transaction, merge.tenant, merge.worked, tenants);
  return absl::OkStatus();
}

absl::Status RestartShard(SqlTransaction& transaction, const Lease& lease, int64_t shard,
                          absl::string_view lost, const absl::Status& cause,
                          const RetryPolicy& policy) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  const std::optional<int64_t> restarts = transaction.Integer(
      "SELECT s.restarts FROM steps s LEFT JOIN step_results r ON r.job = s.job"
      " AND r.shard = s.shard WHERE s.job = $1 AND s.shard = $2"
      " AND CASE WHEN $3 = '' THEN s.state = 2 OR s.token = $4 ELSE r.partial_blob = $3 END",
      step.job, shard, lost, lease.token);
  if (!restarts) return absl::OkStatus();
  if (*restarts + 1 >= policy.max_shard_failures) {
    FinishJobAsFailed(transaction, step.job, MakeJobError(cause, shard));
    return absl::OkStatus();
  }
  transaction.Execute("UPDATE steps SET restarts = restarts + 1 WHERE job = $1 AND shard = $2",
                      step.job, shard);
  ClearShards(transaction, step.job, {shard});
  UpdateReadiness(transaction, step.job);
  return absl::OkStatus();
}

absl::Status FailJob(SqlTransaction& transaction, const Lease& lease, const absl::Status& error,
                     const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  FinishJobAsFailed(transaction, step.job, MakeJobError(error, lease.shard));
  Charge(transaction, lease.tenant, lease.worked, tenants);
  return absl::OkStatus();
}

absl::Status FailShard(SqlTransaction& transaction, const Lease& lease, const absl::Status& error,
                       const RetryPolicy& policy, const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  CountFailure(transaction, step.job, lease.shard, step.failures, MakeJobError(error, lease.shard),
               policy);
  Charge(transaction, lease.tenant, lease.worked, tenants);
  return absl::OkStatus();
}

absl::Status ReleaseLease(SqlTransaction& transaction, const Lease& lease,
                          const TenantPolicies& tenants) {
  const std::optional<int64_t> job = transaction.Integer(
      absl::StrCat("SELECT j.sequence FROM jobs j JOIN steps s ON s.job = j.sequence"
                   " WHERE j.id = $1 AND s.shard = $2 AND s.state = 1 AND s.token = $3",
                   transaction.Locking(" FOR UPDATE OF j, s")),
      lease.job_id, lease.shard, lease.token);
  if (!job) return absl::OkStatus();
  ReturnStep(transaction, *job, lease.shard);
  FinishCancelling(transaction, *job);
  Charge(transaction, lease.tenant, lease.worked, tenants);
  return absl::OkStatus();
}

std::vector<std::string> TakeBackLeases(SqlTransaction& transaction, absl::Time expired_by,
                                        const RetryPolicy& policy) {
  struct Expired {
    int64_t job, shard, failures;
    std::string job_id;
  };
  std::vector<Expired> expired;
  // What somebody else is changing just now, its worker perhaps, is left to the next sweep.
  const auto rows = transaction.Query(
      absl::StrCat("SELECT s.job, s.shard, s.failures, j.id FROM jobs j JOIN steps s"
                   " ON s.job = j.sequence WHERE s.state = 1 AND s.expires_at <= $1"
                   " ORDER BY s.job, s.shard",
                   transaction.Locking(" FOR UPDATE OF j, s SKIP LOCKED")),
      expired_by);
  while (rows->Next()) {
    expired.push_back({.job = rows->Integer(0),
                       .shard = rows->Integer(1),
                       .failures = rows->Integer(2),
                       .job_id = rows->Text(3)});
  }
  std::vector<std::string> changed;
  for (const Expired& step : expired) {
    if (changed.empty() || changed.back() != step.job_id) changed.push_back(step.job_id);
    transaction.Execute("UPDATE jobs SET rescues = rescues + 1 WHERE sequence = $1", step.job);
    transaction.Execute("UPDATE counters SET value = value + 1 WHERE name = 'rescues'");
    const bool running =
        transaction.Integer("SELECT 1 FROM jobs WHERE sequence = $1 AND state = 2", step.job)
            .has_value();
    if (!running) {
      ReturnStep(transaction, step.job, step.shard);
      FinishCancelling(transaction, step.job);
      continue;
    }
    CountFailure(transaction, step.job, step.shard, step.failures,
                 MakeJobError(ErrorWithReason(absl::StatusCode::kInternal, "WORKER_LOST",
                                              "the worker of this shard was lost, and again each "
                                              "time that it was tried"),
                              step.shard),
                 policy);
  }
  return changed;
}

}  // namespace valuescope::store
