// States are written as numbers in the SQL below, because a statement's text is easier to check
// against the schema than a concatenation: jobs 1 queued, 2 running, 3 cancelling, 4 succeeded,
// 5 failed, 6 cancelled; steps 0 pending, 1 leased, 2 done. Long because every transaction that
// moves a job or a step from one state to another is here, so that all of them can be held against
// each other.
#include "store/sqlite_jobs.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "store/blob_store.h"
#include "store/page_token.h"
#include "store/sqlite_resources.h"

namespace valuescope::store {
namespace {

static_assert(static_cast<int>(JobState::kQueued) == 1 &&
              static_cast<int>(JobState::kRunning) == 2 &&
              static_cast<int>(JobState::kCancelling) == 3 &&
              static_cast<int>(JobState::kSucceeded) == 4 &&
              static_cast<int>(JobState::kFailed) == 5 &&
              static_cast<int>(JobState::kCancelled) == 6);

constexpr int kMaxPriority = 100;
constexpr absl::Duration kMaxBackoff = absl::Minutes(5);

#define JOB_COLUMNS                                                                              \
  "sequence, tenant, id, kind, display_name, priority, state, created_at, started_at, "          \
  "finished_at, error_code, error_reason, error_message, error_shard, num_shards, shards_done, " \
  "total_work, work_done, rescues, attempts, result, metadata, needs"

std::optional<absl::Time> ReadTime(SQLite::Column column) {
  if (column.isNull()) return std::nullopt;
  return absl::FromUnixMicros(column.getInt64());
}

std::optional<JobError> ReadError(SQLite::Statement& row) {
  if (row.getColumn(10).isNull()) return std::nullopt;
  JobError error{.code = static_cast<absl::StatusCode>(row.getColumn(10).getInt()),
                 .reason = row.getColumn(11).getString(),
                 .message = row.getColumn(12).getString(),
                 .shard = std::nullopt};
  if (!row.getColumn(13).isNull()) error.shard = row.getColumn(13).getInt64();
  return error;
}

// A row of JOB_COLUMNS; request and spec, which lists leave out, stay empty.
Job ReadJob(SQLite::Statement& row) {
  return Job{
      .tenant = row.getColumn(1).getString(),
      .id = row.getColumn(2).getString(),
      .kind = row.getColumn(3).getString(),
      .display_name = row.getColumn(4).getString(),
      .request = "",
      .metadata = row.getColumn(21).getString(),
      .spec = "",
      .priority = row.getColumn(5).getInt(),
      .needs = row.getColumn(22).getString(),
      .state = static_cast<JobState>(row.getColumn(6).getInt()),
      .created_at = absl::FromUnixMicros(row.getColumn(7).getInt64()),
      .started_at = ReadTime(row.getColumn(8)),
      .finished_at = ReadTime(row.getColumn(9)),
      .error = ReadError(row),
      .result = row.getColumn(20).getString(),
      .num_shards = row.getColumn(14).getInt64(),
      .shards_done = row.getColumn(15).getInt64(),
      .total_work = row.getColumn(16).getInt64(),
      .work_done = row.getColumn(17).getInt64(),
      .rescues = row.getColumn(18).getInt64(),
      .attempts = row.getColumn(19).getInt64(),
  };
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

void InsertSteps(SqliteTransaction& transaction, int64_t job, int64_t num_shards) {
  SQLite::Statement insert = transaction.Query("INSERT INTO steps (job, shard) VALUES (?, ?)");
  for (int64_t shard = kMergeStep; shard < num_shards; ++shard) {
    insert.bind(1, job);
    insert.bind(2, shard);
    insert.exec();
    insert.reset();
  }
}

absl::Status InsertInputs(SqliteTransaction& transaction, int64_t sequence, const NewJob& job) {
  for (const ResourceReference& input : job.inputs) {
    VS_RETURN_IF_ERROR(GetResource(transaction, job.tenant, input.kind, input.id).status());
    transaction.Execute("INSERT OR IGNORE INTO job_inputs VALUES (?, ?, ?, ?)", sequence,
                        job.tenant, static_cast<int64_t>(input.kind), input.id);
  }
  return absl::OkStatus();
}

absl::Status InsertBlobs(SqliteTransaction& transaction, int64_t sequence, const NewJob& job) {
  for (const std::string& digest : job.blobs) {
    VS_RETURN_IF_ERROR(CheckDigest("blobs", digest));
    transaction.Execute("INSERT OR IGNORE INTO job_blobs VALUES (?, ?)", sequence, digest);
  }
  return absl::OkStatus();
}

std::vector<std::string> BlobsOf(SqliteTransaction& transaction, absl::string_view id) {
  std::vector<std::string> digests;
  SQLite::Statement rows = transaction.Query(
      "SELECT b.digest FROM job_blobs b JOIN jobs j ON j.sequence = b.job WHERE j.id = ?", id);
  while (rows.executeStep()) digests.push_back(rows.getColumn(0).getString());
  return digests;
}

// FAILED_PRECONDITION naming an input of the job that is not there any more.
absl::Status CheckInputs(SqliteTransaction& transaction, absl::string_view id) {
  SQLite::Statement row = transaction.Query(
      "SELECT i.kind, i.id FROM job_inputs i JOIN jobs j ON j.sequence = i.job WHERE j.id = ?"
      " AND NOT EXISTS (SELECT 1 FROM resources r"
      "   WHERE r.tenant = i.tenant AND r.kind = i.kind AND r.id = i.id) LIMIT 1",
      id);
  if (!row.executeStep()) return absl::OkStatus();
  const auto kind = static_cast<ResourceKind>(row.getColumn(0).getInt());
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "INPUT_DELETED",
      absl::StrCat("`jobs/", id, "` reads `", ResourceName(kind, row.getColumn(1).getString()),
                   "`, which was deleted; create a new job"));
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

// The fence: ABORTED unless the lease's token still stands in its step and the job is running.
absl::StatusOr<HeldStep> CheckLease(SqliteTransaction& transaction, const Lease& lease) {
  SQLite::Statement row = transaction.Query(
      "SELECT j.sequence, s.failures, s.work_done FROM jobs j JOIN steps s ON s.job = j.sequence"
      " WHERE j.id = ? AND j.state = 2 AND s.shard = ? AND s.state = 1 AND s.token = ?",
      lease.job_id, lease.shard, lease.token);
  if (!row.executeStep()) return LeaseLost();
  return HeldStep{.job = row.getColumn(0).getInt64(),
                  .failures = row.getColumn(1).getInt64(),
                  .work_done = row.getColumn(2).getInt64()};
}

void ReturnStep(SqliteTransaction& transaction, int64_t job, int64_t shard) {
  transaction.Execute(
      "UPDATE steps SET state = 0, token = NULL, expires_at = NULL WHERE job = ? AND shard = ?",
      job, shard);
}

// Ends a job in a state of the finished ones. Nobody holds a lease of it from now on.
void FinishJob(SqliteTransaction& transaction, int64_t job, JobState state) {
  transaction.Execute("UPDATE jobs SET state = ?, finished_at = ? WHERE sequence = ?",
                      static_cast<int64_t>(state), transaction.now(), job);
  transaction.Execute(
      "UPDATE steps SET state = 0, token = NULL, expires_at = NULL WHERE job = ? AND state = 1",
      job);
}

void FinishJobAsFailed(SqliteTransaction& transaction, int64_t job, const JobError& error) {
  FinishJob(transaction, job, JobState::kFailed);
  transaction.Execute(
      "UPDATE jobs SET error_code = ?, error_reason = ?, error_message = ?, error_shard = ?"
      " WHERE sequence = ?",
      static_cast<int64_t>(error.code), error.reason, error.message, error.shard, job);
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

// CANCELLING -> CANCELLED once the last lease has ended.
void FinishCancelling(SqliteTransaction& transaction, int64_t job) {
  const bool stoppable =
      transaction
          .Integer(
              "SELECT 1 FROM jobs WHERE sequence = ?1 AND state = 3"
              " AND NOT EXISTS (SELECT 1 FROM steps WHERE job = ?1 AND state = 1)",
              job)
          .has_value();
  if (stoppable) FinishJob(transaction, job, JobState::kCancelled);
}

// An infrastructure failure of a leased step: back to pending after a pause, or the end of the job.
void CountFailure(SqliteTransaction& transaction, int64_t job, int64_t shard, int64_t failures,
                  const JobError& error, const SqliteStoreOptions& options) {
  ReturnStep(transaction, job, shard);
  const int64_t now_failed = failures + 1;
  if (now_failed >= options.max_shard_failures) {
    FinishJobAsFailed(transaction, job, error);
    return;
  }
  const int64_t doublings = std::min<int64_t>(failures, 16);
  const absl::Duration pause =
      std::min(options.failure_backoff * (int64_t{1} << doublings), kMaxBackoff);
  transaction.Execute("UPDATE steps SET failures = ?, not_before = ? WHERE job = ? AND shard = ?",
                      now_failed, transaction.now() + pause, job, shard);
}

// The next tenant's best job that can be run and has a step ready, as its sequence number.
std::optional<int64_t> NextJob(SqliteTransaction& transaction,
                               const std::vector<WorkType>& can_run) {
  nlohmann::json types = nlohmann::json::array();
  for (const WorkType& type : can_run) types.push_back({type.kind, type.needs});
  return transaction.Integer(
      "SELECT j.sequence FROM jobs j JOIN tenants t ON t.tenant = j.tenant"
      " WHERE j.state IN (1, 2) AND (j.kind, j.needs) IN"
      "   (SELECT value ->> 0, value ->> 1 FROM json_each(?1))"
      " AND EXISTS (SELECT 1 FROM steps s WHERE s.job = j.sequence AND s.state = 0"
      "   AND s.not_before <= ?2 AND (s.shard >= 0 OR j.shards_done = j.num_shards))"
      " ORDER BY t.last_turn, j.priority DESC, j.sequence LIMIT 1",
      types.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace),
      transaction.now());
}

// The lowest ready step of a job that NextJob chose.
Lease ReadNextStep(SqliteTransaction& transaction, int64_t job) {
  SQLite::Statement row = transaction.Query(
      "SELECT j.tenant, j.id, j.kind, j.spec, j.num_shards, s.shard"
      " FROM jobs j JOIN steps s ON s.job = j.sequence"
      " WHERE j.sequence = ? AND s.state = 0 AND s.not_before <= ?"
      " AND (s.shard >= 0 OR j.shards_done = j.num_shards) ORDER BY s.shard LIMIT 1",
      job, transaction.now());
  row.executeStep();
  return Lease{.tenant = row.getColumn(0).getString(),
               .job_id = row.getColumn(1).getString(),
               .kind = row.getColumn(2).getString(),
               .spec = row.getColumn(3).getString(),
               .shard = row.getColumn(5).getInt64(),
               .token = NewUuid(),
               .expires_at = {},
               .num_shards = row.getColumn(4).getInt64()};
}

}  // namespace

absl::StatusOr<Job> CreateJob(SqliteTransaction& transaction, const NewJob& job,
                              const IdempotencyKey& key) {
  VS_ASSIGN_OR_RETURN(const std::optional<EarlierRequest> earlier,
                      FindEarlierRequest(transaction, job.tenant, key));
  if (earlier) return GetJob(transaction, job.tenant, earlier->job_id);
  VS_RETURN_IF_ERROR(CheckNewJob(job));

  const std::string id = NewUuid();
  // A new tenant queues up behind the others.
  transaction.Execute(
      "INSERT OR IGNORE INTO tenants SELECT ?, coalesce(max(last_turn), 0) + 1 FROM tenants",
      job.tenant);
  transaction.Execute(
      "INSERT INTO jobs (id, tenant, kind, display_name, priority, needs, state, created_at,"
      " num_shards, total_work, metadata, request, spec)"
      " VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
      id, job.tenant, job.kind, job.display_name, static_cast<int64_t>(job.priority), job.needs,
      transaction.now(), job.num_shards, job.total_work, Bytes{job.metadata}, Bytes{job.request},
      Bytes{job.spec});
  const int64_t sequence = transaction.LastSequence();
  InsertSteps(transaction, sequence, job.num_shards);
  VS_RETURN_IF_ERROR(InsertInputs(transaction, sequence, job));
  VS_RETURN_IF_ERROR(InsertBlobs(transaction, sequence, job));
  RememberRequest(transaction, job.tenant, key, {.job_id = id, .references = {}});
  return GetJob(transaction, job.tenant, id);
}

absl::StatusOr<Job> GetJob(SqliteTransaction& transaction, absl::string_view tenant,
                           absl::string_view id) {
  SQLite::Statement row = transaction.Query(
      "SELECT " JOB_COLUMNS ", request, spec FROM jobs WHERE id = ? AND tenant = ?", id, tenant);
  if (!row.executeStep()) return ResourceNotFound(absl::StrCat("jobs/", id));
  Job job = ReadJob(row);
  job.request = row.getColumn(23).getString();
  job.spec = row.getColumn(24).getString();
  return job;
}

absl::StatusOr<JobPage> ListJobs(SqliteTransaction& transaction, absl::string_view tenant,
                                 const JobFilter& filter, const Page& page) {
  const int64_t state = filter.state ? static_cast<int64_t>(*filter.state) : 0;
  const std::vector<std::string> scope = {std::string(tenant), "jobs", absl::StrCat(state),
                                          filter.kind};
  VS_ASSIGN_OR_RETURN(const PageBounds bounds, ParsePage(page, scope));
  SQLite::Statement rows = transaction.Query(
      "SELECT " JOB_COLUMNS
      " FROM jobs WHERE tenant = ?1 AND sequence < ?2 AND (?3 = 0 OR state = ?3)"
      " AND (?4 = '' OR kind = ?4) ORDER BY sequence DESC LIMIT ?5",
      tenant, bounds.before, state, filter.kind, static_cast<int64_t>(bounds.size) + 1);
  JobPage result;
  int64_t last = 0;
  while (rows.executeStep()) {
    if (result.jobs.size() == static_cast<size_t>(bounds.size)) {
      result.next_page_token = MakePageToken(last, scope);
      break;
    }
    last = rows.getColumn(0).getInt64();
    result.jobs.push_back(ReadJob(rows));
  }
  return result;
}

absl::StatusOr<Job> RequestCancel(SqliteTransaction& transaction, absl::string_view tenant,
                                  absl::string_view id) {
  const std::optional<int64_t> job = transaction.Integer(
      "SELECT sequence FROM jobs WHERE id = ? AND tenant = ? AND state IN (1, 2)", id, tenant);
  if (job) {
    transaction.Execute("UPDATE jobs SET state = 3 WHERE sequence = ?", *job);
    FinishCancelling(transaction, *job);
  }
  return GetJob(transaction, tenant, id);
}

absl::StatusOr<Job> RetryJob(SqliteTransaction& transaction, absl::string_view tenant,
                             absl::string_view id, const IdempotencyKey& key) {
  VS_ASSIGN_OR_RETURN(const std::optional<EarlierRequest> earlier,
                      FindEarlierRequest(transaction, tenant, key));
  if (earlier) return GetJob(transaction, tenant, earlier->job_id);
  VS_ASSIGN_OR_RETURN(const Job job, GetJob(transaction, tenant, id));
  if (job.state != JobState::kFailed && job.state != JobState::kCancelled) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "JOB_NOT_RETRYABLE",
                           absl::StrCat("`jobs/", id, "` is ", NameOf(job.state),
                                        "; only a failed or cancelled job can be retried"));
  }
  VS_RETURN_IF_ERROR(CheckInputs(transaction, id));
  transaction.Execute(
      "UPDATE jobs SET state = 1, attempts = attempts + 1, finished_at = NULL, error_code = NULL,"
      " error_reason = NULL, error_message = NULL, error_shard = NULL WHERE id = ?",
      id);
  transaction.Execute(
      "UPDATE steps SET failures = 0, not_before = 0 WHERE state = 0 AND job ="
      " (SELECT sequence FROM jobs WHERE id = ?)",
      id);
  RememberRequest(transaction, tenant, key, {.job_id = std::string(id), .references = {}});
  return GetJob(transaction, tenant, id);
}

absl::Status DeleteJob(SqliteTransaction& transaction, absl::string_view tenant,
                       absl::string_view id) {
  VS_ASSIGN_OR_RETURN(const Job job, GetJob(transaction, tenant, id));
  if (!IsFinished(job.state)) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "JOB_NOT_FINISHED",
        absl::StrCat("`jobs/", id, "` is ", NameOf(job.state), "; cancel it first"));
  }
  VS_RETURN_IF_ERROR(DeleteArtifactsOf(transaction, tenant, id));
  const std::vector<std::string> blobs = BlobsOf(transaction, id);
  transaction.Execute("DELETE FROM jobs WHERE id = ?", id);
  MarkIfUnnamed(transaction, blobs);
  return absl::OkStatus();
}

std::vector<WorkType> ListWork(SqliteTransaction& transaction) {
  std::vector<WorkType> types;
  SQLite::Statement rows =
      transaction.Query("SELECT DISTINCT kind, needs FROM jobs WHERE state IN (1, 2)");
  while (rows.executeStep()) {
    types.push_back(
        {.kind = rows.getColumn(0).getString(), .needs = rows.getColumn(1).getString()});
  }
  return types;
}

absl::StatusOr<std::optional<Lease>> LeaseWork(SqliteTransaction& transaction,
                                               const LeaseRequest& request) {
  const std::optional<int64_t> job = NextJob(transaction, request.can_run);
  if (!job) return std::nullopt;
  Lease lease = ReadNextStep(transaction, *job);
  lease.expires_at = transaction.now() + request.duration;
  transaction.Execute(
      "UPDATE steps SET state = 1, token = ?, expires_at = ? WHERE job = ? AND shard = ?",
      lease.token, lease.expires_at, *job, lease.shard);
  transaction.Execute(
      "UPDATE jobs SET state = 2, started_at = coalesce(started_at, ?) WHERE sequence = ?",
      transaction.now(), *job);
  transaction.Execute(
      "UPDATE tenants SET last_turn = (SELECT max(last_turn) + 1 FROM tenants) WHERE tenant = ?",
      lease.tenant);
  return lease;
}

absl::StatusOr<ShardProgress> ReadProgress(SqliteTransaction& transaction, const Lease& lease,
                                           int64_t shard) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  SQLite::Statement row = transaction.Query(
      "SELECT partial, cursor, work_done FROM steps WHERE job = ? AND shard = ?", step.job, shard);
  if (!row.executeStep()) {
    return OutOfRange("shard", static_cast<double>(shard), 0,
                      static_cast<double>(lease.num_shards - 1));
  }
  return ShardProgress{.partial = row.getColumn(0).getString(),
                       .cursor = row.getColumn(1).getString(),
                       .work_done = row.getColumn(2).getInt64()};
}

absl::Status ExtendLease(SqliteTransaction& transaction, const Lease& lease,
                         absl::Duration duration) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  transaction.Execute("UPDATE steps SET expires_at = ? WHERE job = ? AND shard = ?",
                      transaction.now() + duration, step.job, lease.shard);
  return absl::OkStatus();
}

absl::Status CommitProgress(SqliteTransaction& transaction, const Lease& lease,
                            const ShardProgress& progress, bool done) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  transaction.Execute(
      "UPDATE steps SET partial = ?, cursor = ?, work_done = ?, failures = 0 WHERE job = ?"
      " AND shard = ?",
      Bytes{progress.partial}, Bytes{progress.cursor}, progress.work_done, step.job, lease.shard);
  transaction.Execute("UPDATE jobs SET work_done = work_done + ? WHERE sequence = ?",
                      progress.work_done - step.work_done, step.job);
  if (!done) return absl::OkStatus();
  transaction.Execute(
      "UPDATE steps SET state = 2, token = NULL, expires_at = NULL WHERE job = ? AND shard = ?",
      step.job, lease.shard);
  transaction.Execute("UPDATE jobs SET shards_done = shards_done + 1 WHERE sequence = ?", step.job);
  return absl::OkStatus();
}

absl::Status CompleteJob(SqliteTransaction& transaction, const Lease& merge,
                         absl::string_view summary, std::vector<Resource> resources) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, merge));
  for (Resource& resource : resources) {
    resource.tenant = merge.tenant;
    resource.job_id = merge.job_id;
    VS_RETURN_IF_ERROR(CheckResource(resource));
    VS_RETURN_IF_ERROR(PutResource(transaction, std::move(resource)).status());
  }
  const std::string result(summary);
  transaction.Execute("UPDATE jobs SET result = ? WHERE sequence = ?", Bytes{result}, step.job);
  FinishJob(transaction, step.job, JobState::kSucceeded);
  // The artifacts replace the partial results.
  transaction.Execute("DELETE FROM steps WHERE job = ?", step.job);
  return absl::OkStatus();
}

absl::Status FailJob(SqliteTransaction& transaction, const Lease& lease,
                     const absl::Status& error) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  FinishJobAsFailed(transaction, step.job, MakeJobError(error, lease.shard));
  return absl::OkStatus();
}

absl::Status FailShard(SqliteTransaction& transaction, const Lease& lease,
                       const absl::Status& error, const SqliteStoreOptions& options) {
  VS_ASSIGN_OR_RETURN(const HeldStep step, CheckLease(transaction, lease));
  CountFailure(transaction, step.job, lease.shard, step.failures, MakeJobError(error, lease.shard),
               options);
  return absl::OkStatus();
}

absl::Status ReleaseLease(SqliteTransaction& transaction, const Lease& lease) {
  const std::optional<int64_t> job = transaction.Integer(
      "SELECT j.sequence FROM jobs j JOIN steps s ON s.job = j.sequence"
      " WHERE j.id = ? AND s.shard = ? AND s.state = 1 AND s.token = ?",
      lease.job_id, lease.shard, lease.token);
  if (!job) return absl::OkStatus();
  ReturnStep(transaction, *job, lease.shard);
  FinishCancelling(transaction, *job);
  return absl::OkStatus();
}

std::vector<std::string> TakeBackLeases(SqliteTransaction& transaction, absl::Time expired_by,
                                        const SqliteStoreOptions& options) {
  struct Expired {
    int64_t job, shard, failures;
    std::string job_id;
  };
  std::vector<Expired> expired;
  SQLite::Statement rows = transaction.Query(
      "SELECT s.job, s.shard, s.failures, j.id FROM steps s JOIN jobs j ON j.sequence = s.job"
      " WHERE s.state = 1 AND s.expires_at <= ? ORDER BY s.job, s.shard",
      expired_by);
  while (rows.executeStep()) {
    expired.push_back({.job = rows.getColumn(0).getInt64(),
                       .shard = rows.getColumn(1).getInt64(),
                       .failures = rows.getColumn(2).getInt64(),
                       .job_id = rows.getColumn(3).getString()});
  }
  std::vector<std::string> changed;
  for (const Expired& step : expired) {
    if (changed.empty() || changed.back() != step.job_id) changed.push_back(step.job_id);
    transaction.Execute("UPDATE jobs SET rescues = rescues + 1 WHERE sequence = ?", step.job);
    transaction.Execute("UPDATE counters SET value = value + 1 WHERE name = 'rescues'");
    const bool running =
        transaction.Integer("SELECT 1 FROM jobs WHERE sequence = ? AND state = 2", step.job)
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
                 options);
  }
  return changed;
}

std::vector<JobCount> CountJobs(SqliteTransaction& transaction) {
  std::vector<JobCount> counts;
  SQLite::Statement rows = transaction.Query(
      "SELECT tenant, kind, state, count(*) FROM jobs GROUP BY tenant, kind, state");
  while (rows.executeStep()) {
    counts.push_back({.tenant = rows.getColumn(0).getString(),
                      .kind = rows.getColumn(1).getString(),
                      .state = static_cast<JobState>(rows.getColumn(2).getInt()),
                      .count = rows.getColumn(3).getInt64()});
  }
  return counts;
}

int64_t TotalRescues(SqliteTransaction& transaction) {
  return transaction.Integer("SELECT value FROM counters WHERE name = 'rescues'").value_or(0);
}

}  // namespace valuescope::store
