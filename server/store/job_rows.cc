// States are written as numbers in the SQL below, because a statement's text is easier to check
// against the schema than a concatenation: jobs 1 queued, 2 running, 3 cancelling, 4 succeeded,
// 5 failed, 6 cancelled; steps 0 open, 1 leased, 2 done, 3 a merge whose shards are not done. Long
// because every transaction that moves a job or a step from one state to another is here, so that
// all of them can be held against each other.
#include "store/job_rows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "store/blob_store.h"
#include "store/ready_queue.h"
#include "store/resource_rows.h"
#include "store/tenant_rows.h"

namespace valuescope::store {
namespace {

static_assert(static_cast<int>(JobState::kQueued) == 1 &&
              static_cast<int>(JobState::kRunning) == 2 &&
              static_cast<int>(JobState::kCancelling) == 3 &&
              static_cast<int>(JobState::kSucceeded) == 4 &&
              static_cast<int>(JobState::kFailed) == 5 &&
              static_cast<int>(JobState::kCancelled) == 6);

constexpr char kChanging[] = " FOR UPDATE OF jobs";
constexpr char kChangingUnlessLocked[] = " FOR UPDATE SKIP LOCKED";
constexpr int kMaxPriority = 100;
constexpr absl::Duration kMaxBackoff = absl::Minutes(5);

std::optional<absl::Time> ReadTime(SqlRows& row, int column) {
  if (row.IsNull(column)) return std::nullopt;
  return absl::FromUnixMicros(row.Integer(column));
}

std::optional<JobError> ReadError(SqlRows& row) {
  if (row.IsNull(10)) return std::nullopt;
  JobError error{.code = static_cast<absl::StatusCode>(row.Integer(10)),
                 .reason = row.Text(11),
                 .message = row.Text(12),
                 .shard = std::nullopt};
  if (!row.IsNull(13)) error.shard = row.Integer(13);
  return error;
}

absl::Status CheckNewJob(const NewJob& job) {
  if (job.num_shards < 1 || job.num_shards > kMaxShards) {
    return OutOfRange("num_shards", static_cast<double>(job.num_shards), 1, kMaxShards);
  }
  if (job.priority < -kMaxPriority || job.priority > kMaxPriority) {
    return OutOfRange("priority", job.priority, -kMaxPriority, kMaxPriority);
  }
  if (job.total_work < 0) return InvalidField("total_work", "must be at least 0");
  return CheckDisplayName("display_name", job.display_name);
}

void InsertSteps(SqlTransaction& transaction, int64_t job, int64_t num_shards) {
  transaction.Execute(
      "WITH RECURSIVE shards (shard) AS (SELECT CAST($2 AS BIGINT) UNION ALL"
      "   SELECT shard + 1 FROM shards WHERE shard + 1 < $3)"
      " INSERT INTO steps (job, shard, state)"
      "   SELECT $1, shard, CASE WHEN shard >= 0 THEN 0 ELSE 3 END FROM shards",
      job, kMergeStep, num_shards);
}

absl::Status InsertInputs(SqlTransaction& transaction, int64_t sequence, const NewJob& job) {
  for (const ResourceReference& input : job.inputs) {
    VS_RETURN_IF_ERROR(
        GetResource(transaction, job.tenant, input.kind, input.id, kReading).status());
    transaction.Execute("INSERT INTO job_inputs VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                        sequence, job.tenant, static_cast<int64_t>(input.kind), input.id);
  }
  return absl::OkStatus();
}

absl::Status InsertBlobs(SqlTransaction& transaction, int64_t sequence, const NewJob& job) {
  for (const std::string& digest : job.blobs) {
    VS_RETURN_IF_ERROR(CheckDigest("blobs", digest));
    transaction.Execute("INSERT INTO job_blobs VALUES ($1, $2) ON CONFLICT DO NOTHING", sequence,
                        digest);
  }
  return absl::OkStatus();
}

std::vector<std::string> BlobsOf(SqlTransaction& transaction, absl::string_view id) {
  std::vector<std::string> digests;
  const auto rows = transaction.Query(
      "SELECT b.digest FROM job_blobs b JOIN jobs j ON j.sequence = b.job WHERE j.id = $1", id);
  while (rows->Next()) digests.push_back(rows->Text(0));
  return digests;
}

// Oldest first, as far as a job of that revision has come.
std::vector<JobTransition> TransitionsOf(SqlTransaction& transaction, absl::string_view id,
                                         int64_t revision) {
  std::vector<JobTransition> transitions;
  const auto rows = transaction.Query(
      "SELECT s.revision, s.state FROM job_states s JOIN jobs j ON j.sequence = s.job"
      " WHERE j.id = $1 AND s.revision <= $2 ORDER BY s.revision DESC LIMIT $3",
      id, revision, kMostTransitions);
  while (rows->Next()) {
    transitions.push_back(
        {.revision = rows->Integer(0), .state = static_cast<JobState>(rows->Integer(1))});
  }
  std::reverse(transitions.begin(), transitions.end());
  return transitions;
}

std::vector<Observed> ObservedOf(SqlTransaction& transaction, absl::string_view id) {
  std::vector<Observed> observed;
  const auto rows = transaction.Query(
      "SELECT o.name, o.count, o.sum, o.sum_of_squares FROM job_observed o"
      " JOIN jobs j ON j.sequence = o.job WHERE j.id = $1 ORDER BY o.name",
      id);
  while (rows->Next()) {
    observed.push_back({.name = rows->Text(0),
                        .count = rows->Integer(1),
                        .sum = rows->Integer(2),
                        .sum_of_squares = rows->Integer(3)});
  }
  return observed;
}

void AddObserved(SqlTransaction& transaction, int64_t job, const std::vector<Observed>& observed) {
  for (const Observed& one : observed) {
    transaction.Execute(
        "INSERT INTO job_observed VALUES ($1, $2, $3, $4, $5) ON CONFLICT (job, name) DO UPDATE"
        " SET count = job_observed.count + excluded.count, sum = job_observed.sum + excluded.sum,"
        " sum_of_squares = job_observed.sum_of_squares + excluded.sum_of_squares",
        job, one.name, one.count, one.sum, one.sum_of_squares);
  }
}

void InsertModels(SqlTransaction& transaction, int64_t sequence, const NewJob& job) {
  for (const std::string& model : job.models) {
    transaction.Execute(
        "INSERT INTO job_models (job, tenant, model) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        sequence, job.tenant, model);
  }
}

// FAILED_PRECONDITION naming an input of the job that is not there any more. The others stay while
// the transaction lasts.
absl::Status CheckInputs(SqlTransaction& transaction, absl::string_view tenant,
                         absl::string_view id) {
  const auto inputs = transaction.Query(
      "SELECT i.kind, i.id FROM job_inputs i JOIN jobs j ON j.sequence = i.job WHERE j.id = $1"
      " ORDER BY i.kind, i.id",
      id);
  while (inputs->Next()) {
    const auto kind = static_cast<ResourceKind>(inputs->Integer(0));
    const std::string input = inputs->Text(1);
    if (GetResource(transaction, tenant, kind, input, kReading).ok()) continue;
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "INPUT_DELETED",
                           absl::StrCat("`jobs/", id, "` reads `", ResourceName(kind, input),
                                        "`, which was deleted; create a new job"));
  }
  return absl::OkStatus();
}

absl::Status LeaseLost() {
  return ErrorWithReason(absl::StatusCode::kAborted, "LEASE_LOST",
                         "the lease was taken back or the job is not running any more");
}

// The row of a job and how far the leased step is, for a lease that still holds.
struct HeldStep {
  int64_t job = 0;
  int64_t failures = 0;
  int64_t work_done = 0;
};

constexpr char kRunning[] = "(2)", kRunningOrCancelling[] = "(2, 3)";

// The fence: ABORTED unless the lease's token still stands in its step and the job's state is one
// of `states`. `lock`: of both rows; empty where nothing is going to be written.
absl::StatusOr<HeldStep> CheckLease(SqlTransaction& transaction, const Lease& lease,
                                    absl::string_view states = kRunning,
                                    absl::string_view lock = " FOR UPDATE OF j, s") {
  const auto row = transaction.Query(
      absl::StrCat("SELECT j.sequence, s.failures, s.work_done FROM jobs j JOIN steps s ON s.job ="
                   " j.sequence WHERE j.id = $1 AND j.state IN ",
                   states, " AND s.shard = $2 AND s.state = 1 AND s.token = $3",
                   transaction.Locking(lock)),
      lease.job_id, lease.shard, lease.token);
  if (!row->Next()) return LeaseLost();
  return HeldStep{
      .job = row->Integer(0), .failures = row->Integer(1), .work_done = row->Integer(2)};
}

void ReturnStep(SqlTransaction& transaction, int64_t job, int64_t shard) {
  transaction.Execute(
      "UPDATE steps SET state = 0, token = NULL, expires_at = NULL WHERE job = $1 AND shard = $2",
      job, shard);
  UpdateReadiness(transaction, job);
}

// Ends a job in a state of the finished ones. Nobody holds a lease of it from now on.
void FinishJob(SqlTransaction& transaction, int64_t job, JobState state) {
  transaction.Execute(
      "UPDATE jobs SET state = $1, finished_at = $2, ready_at = NULL WHERE sequence = $3",
      static_cast<int64_t>(state), transaction.now(), job);
  transaction.Execute(
      "UPDATE steps SET state = 0, token = NULL, expires_at = NULL WHERE job = $1 AND state = 1",
      job);
}

// CANCELLING -> CANCELLED once the last lease has ended, and the last part.
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

// Parts of a job in one of `states`, in the order in which they began.
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

constexpr char kUnfinished[] = "(1, 2, 3)", kAnyState[] = "(1, 2, 3, 4, 5, 6)";

// Asks it to stop, with its parts.
void BeginCancelling(SqlTransaction& transaction, int64_t job) {
  transaction.Execute(
      "UPDATE jobs SET state = 3, ready_at = NULL WHERE sequence = $1 AND state IN (1, 2)", job);
  for (const int64_t child : ChildrenIn(transaction, job, kUnfinished)) {
    BeginCancelling(transaction, child);
  }
  FinishCancelling(transaction, job);
}

absl::Status CheckIsNoChild(const Job& job) {
  if (job.parent.empty()) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "CHILD_JOB",
                         absl::StrCat("`jobs/", job.id, "` is a part of `jobs/", job.parent,
                                      "`: cancel, retry or delete that one"));
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
  if (!row->Next()) return std::nullopt;
  const auto step = transaction.Query(
      "SELECT shard, failures FROM steps WHERE job = $1 AND state = 0 AND not_before <= $2"
      " ORDER BY shard LIMIT 1",
      job, transaction.now());
  if (!step->Next()) return std::nullopt;
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

// Takes the place of what the step had come to.
void WriteResult(SqlTransaction& transaction, int64_t job, int64_t shard,
                 const ShardProgress& progress) {
  transaction.Execute(
      "INSERT INTO step_results (job, shard, cursor, partial) VALUES ($1, $2, $3, $4)"
      " ON CONFLICT (job, shard) DO UPDATE"
      " SET cursor = excluded.cursor, partial = excluded.partial",
      job, shard, Bytes{progress.cursor}, Bytes{progress.partial});
}

// Where the last shard is done.
void OpenMerge(SqlTransaction& transaction, int64_t job) {
  transaction.Execute("UPDATE steps SET state = 0 WHERE job = $1 AND shard = $2", job, kMergeStep);
  UpdateReadiness(transaction, job);
}

}  // namespace

Job ReadJob(SqlRows& row) {
  return Job{
      .tenant = row.Text(1),
      .id = row.Text(2),
      .kind = row.Text(3),
      .display_name = row.Text(4),
      .request = "",
      .metadata = row.Text(20),
      .spec = "",
      .priority = static_cast<int>(row.Integer(5)),
      .needs = row.Text(21),
      .state = static_cast<JobState>(row.Integer(6)),
      .created_at = absl::FromUnixMicros(row.Integer(7)),
      .started_at = ReadTime(row, 8),
      .finished_at = ReadTime(row, 9),
      .error = ReadError(row),
      .result = "",
      .num_shards = row.Integer(14),
      .shards_done = row.Integer(15),
      .total_work = row.Integer(16),
      .work_done = row.Integer(17),
      .rescues = row.Integer(18),
      .attempts = row.Integer(19),
      .revision = row.Integer(22),
      .transitions = {},
      .blobs = {},
      .observed = {},
      .parent = row.IsNull(23) ? "" : row.Text(23),
      .phase = row.IsNull(24) ? "" : row.Text(24),
      .num_parts = row.Integer(25),
  };
}

absl::StatusOr<Job> CreateJob(SqlTransaction& transaction, const NewJob& job,
                              const IdempotencyKey& key, const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const std::optional<EarlierRequest> earlier,
                      FindEarlierRequest(transaction, job.tenant, key));
  if (earlier) return GetJob(transaction, job.tenant, earlier->job_id);
  VS_RETURN_IF_ERROR(CheckNewJob(job));

  const std::string id = NewUuid();
  AddTenant(transaction, job.tenant);
  const int64_t sequence =
      transaction
          .Integer(
              "INSERT INTO jobs (id, tenant, kind, display_name, priority, needs, line, state,"
              " created_at, ready_at, num_shards, total_work)"
              " VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, 0, $9, $10) RETURNING sequence",
              id, job.tenant, job.kind, job.display_name, static_cast<int64_t>(job.priority),
              job.needs, LineOf(transaction, job.tenant, job.kind, job.needs), transaction.now(),
              job.num_shards, job.total_work)
          .value();
  transaction.Execute(
      "INSERT INTO job_payloads (job, metadata, spec, request) VALUES ($1, $2, $3, $4)", sequence,
      Bytes{job.metadata}, Bytes{job.spec}, Bytes{job.request});
  InsertSteps(transaction, sequence, job.num_shards);
  VS_RETURN_IF_ERROR(InsertInputs(transaction, sequence, job));
  VS_RETURN_IF_ERROR(InsertBlobs(transaction, sequence, job));
  InsertModels(transaction, sequence, job);
  RememberRequest(transaction, job.tenant, key, {.job_id = id, .references = {}});
  VS_RETURN_IF_ERROR(CheckQueuedJobs(transaction, job.tenant, tenants));
  return GetJob(transaction, job.tenant, id);
}

absl::StatusOr<Job> GetJob(SqlTransaction& transaction, absl::string_view tenant,
                           absl::string_view id, absl::string_view lock) {
  // Text that no name has may be more than a database can compare.
  if (!CheckResourceId("id", id).ok()) return ResourceNotFound(absl::StrCat("jobs/", id));
  const auto row = transaction.Query(
      absl::StrCat("SELECT ", kJobColumns, ", result, request, spec FROM ", kJobsWithPayloads,
                   " WHERE id = $1 AND tenant = $2", transaction.Locking(lock)),
      id, tenant);
  if (!row->Next()) return ResourceNotFound(absl::StrCat("jobs/", id));
  Job job = ReadJob(*row);
  job.result = row->Text(kNumJobColumns);
  job.request = row->Text(kNumJobColumns + 1);
  job.spec = row->Text(kNumJobColumns + 2);
  job.transitions = TransitionsOf(transaction, id, job.revision);
  job.blobs = BlobsOf(transaction, id);
  job.observed = ObservedOf(transaction, id);
  return job;
}

namespace {

constexpr char kUnsuccessful[] = "(5, 6)";

// Of a job that is there.
int64_t SequenceOf(SqlTransaction& transaction, absl::string_view id) {
  return transaction.Integer("SELECT sequence FROM jobs WHERE id = $1", id).value();
}

std::string IdOf(SqlTransaction& transaction, int64_t sequence) {
  const auto row = transaction.Query("SELECT id FROM jobs WHERE sequence = $1", sequence);
  return row->Next() ? row->Text(0) : "";
}

// A job that failed or was cancelled, from where it was.
absl::Status Requeue(SqlTransaction& transaction, absl::string_view tenant, int64_t sequence) {
  VS_RETURN_IF_ERROR(CheckInputs(transaction, tenant, IdOf(transaction, sequence)));
  transaction.Execute(
      "UPDATE jobs SET state = 1, attempts = attempts + 1, finished_at = NULL,"
      " error_code = NULL, error_reason = NULL, error_message = NULL,"
      " error_shard = NULL WHERE sequence = $1",
      sequence);
  transaction.Execute("UPDATE steps SET failures = 0, not_before = 0 WHERE state = 0 AND job = $1",
                      sequence);
  UpdateReadiness(transaction, sequence);
  return absl::OkStatus();
}

absl::Status DeleteWithParts(SqlTransaction& transaction, absl::string_view tenant,
                             int64_t sequence) {
  const std::string id = IdOf(transaction, sequence);
  VS_ASSIGN_OR_RETURN(const Job job, GetJob(transaction, tenant, id));
  if (!IsFinished(job.state)) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "JOB_NOT_FINISHED",
        absl::StrCat("`jobs/", id, "` is ", NameOf(job.state), "; ",
                     job.parent.empty() ? "cancel it first" : "it has yet to stop, try again"));
  }
  for (const int64_t child : ChildrenIn(transaction, sequence, kAnyState)) {
    VS_RETURN_IF_ERROR(DeleteWithParts(transaction, tenant, child));
  }
  VS_RETURN_IF_ERROR(DeleteArtifactsOf(transaction, tenant, id));
  const std::vector<std::string> blobs = BlobsOf(transaction, id);
  transaction.Execute("DELETE FROM jobs WHERE sequence = $1", sequence);
  MarkIfUnnamed(transaction, blobs);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Job> RequestCancel(SqlTransaction& transaction, absl::string_view tenant,
                                  absl::string_view id) {
  VS_ASSIGN_OR_RETURN(const Job job, GetJob(transaction, tenant, id, kChanging));
  VS_RETURN_IF_ERROR(CheckIsNoChild(job));
  const std::optional<int64_t> sequence =
      transaction.Integer("SELECT sequence FROM jobs WHERE id = $1 AND state IN (1, 2)", id);
  if (sequence) BeginCancelling(transaction, *sequence);
  return GetJob(transaction, tenant, id);
}

absl::StatusOr<Job> RetryJob(SqlTransaction& transaction, absl::string_view tenant,
                             absl::string_view id, const IdempotencyKey& key,
                             const TenantPolicies& tenants) {
  VS_ASSIGN_OR_RETURN(const std::optional<EarlierRequest> earlier,
                      FindEarlierRequest(transaction, tenant, key));
  if (earlier) return GetJob(transaction, tenant, earlier->job_id);
  VS_ASSIGN_OR_RETURN(const Job job, GetJob(transaction, tenant, id, kChanging));
  VS_RETURN_IF_ERROR(CheckIsNoChild(job));
  if (job.state != JobState::kFailed && job.state != JobState::kCancelled) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "JOB_NOT_RETRYABLE",
                           absl::StrCat("`jobs/", id, "` is ", NameOf(job.state),
                                        "; only a failed or cancelled job can be retried"));
  }
  const int64_t sequence = SequenceOf(transaction, id);
  if (!ChildrenIn(transaction, sequence, kUnfinished).empty()) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "JOB_NOT_RETRYABLE",
                           absl::StrCat("a part of `jobs/", id, "` has yet to stop; try again"));
  }
  VS_RETURN_IF_ERROR(Requeue(transaction, tenant, sequence));
  for (const int64_t child : ChildrenIn(transaction, sequence, kUnsuccessful)) {
    VS_RETURN_IF_ERROR(Requeue(transaction, tenant, child));
  }
  RememberRequest(transaction, tenant, key, {.job_id = std::string(id), .references = {}});
  VS_RETURN_IF_ERROR(CheckQueuedJobs(transaction, tenant, tenants));
  return GetJob(transaction, tenant, id);
}

absl::Status DeleteJob(SqlTransaction& transaction, absl::string_view tenant,
                       absl::string_view id) {
  VS_ASSIGN_OR_RETURN(const Job job, GetJob(transaction, tenant, id, kChanging));
  VS_RETURN_IF_ERROR(CheckIsNoChild(job));
  return DeleteWithParts(transaction, tenant, SequenceOf(transaction, id));
}

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
      "SELECT s.work_done, r.cursor, r.partial FROM steps s LEFT JOIN step_results r"
      " ON r.job = s.job AND r.shard = s.shard WHERE s.job = $1 AND s.shard = $2",
      step.job, shard);
  if (!row->Next()) {
    return OutOfRange("shard", static_cast<double>(shard), 0,
                      static_cast<double>(lease.num_shards - 1));
  }
  return ShardProgress{.partial = row->IsNull(2) ? "" : row->Text(2),
                       .cursor = row->IsNull(1) ? "" : row->Text(1),
                       .work_done = row->Integer(0)};
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
  WriteResult(transaction, step.job, lease.shard, progress);
  transaction.Execute(absl::StrCat("UPDATE steps SET work_done = $1, failures = 0",
                                   done ? ", state = 2, token = NULL, expires_at = NULL" : "",
                                   " WHERE job = $2 AND shard = $3"),
                      progress.work_done, step.job, lease.shard);
  const std::optional<int64_t> left = transaction.Integer(
      "UPDATE jobs SET work_done = work_done + $1, shards_done = shards_done + $2"
      " WHERE sequence = $3 RETURNING num_shards - shards_done",
      progress.work_done - step.work_done, int64_t{done}, step.job);
  if (done && left == 0) OpenMerge(transaction, step.job);
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
  // The artifacts replace the partial results.
  transaction.Execute("DELETE FROM steps WHERE job = $1", step.job);
  Charge(transaction, merge.tenant, merge.worked, tenants);
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

std::vector<JobCount> CountJobs(SqlTransaction& transaction) {
  std::vector<JobCount> counts;
  const auto rows = transaction.Query(
      "SELECT state, kind, tenant, count(*) FROM jobs GROUP BY state, kind, tenant");
  while (rows->Next()) {
    counts.push_back({.tenant = rows->Text(2),
                      .kind = rows->Text(1),
                      .state = static_cast<JobState>(rows->Integer(0)),
                      .count = rows->Integer(3)});
  }
  return counts;
}

int64_t TotalRescues(SqlTransaction& transaction) {
  return transaction.Integer("SELECT value FROM counters WHERE name = 'rescues'").value_or(0);
}

QueueAges MeasureAges(SqlTransaction& transaction) {
  const auto row = transaction.Query(
      "SELECT (SELECT created_at FROM jobs WHERE state = 1 ORDER BY created_at LIMIT 1),"
      " (SELECT min(expires_at) FROM steps WHERE state = 1)");
  row->Next();
  QueueAges ages;
  if (const auto created = ReadTime(*row, 0)) ages.oldest_queued = transaction.now() - *created;
  if (const auto expiry = ReadTime(*row, 1)) ages.next_expiry = *expiry - transaction.now();
  return ages;
}

}  // namespace valuescope::store
