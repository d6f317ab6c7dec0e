#include "store/job_rows.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "store/blob_store.h"
#include "store/job_states.h"
#include "store/partial_rows.h"
#include "store/ready_queue.h"
#include "store/resource_rows.h"
#include "store/step_blobs.h"
#include "store/tenant_rows.h"

namespace valuescope::store {
namespace {

constexpr int kMaxPriority = 100;

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
    // The row that is read, which may be the tenant's or the published one, is what must stay.
    VS_ASSIGN_OR_RETURN(const Resource resource,
                        GetResource(transaction, job.tenant, input.kind, input.id, kReading));
    transaction.Execute("INSERT INTO job_inputs VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                        sequence, resource.tenant, static_cast<int64_t>(input.kind), input.id);
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

void InsertModels(SqlTransaction& transaction, int64_t sequence, const NewJob& job) {
  for (const std::string& model : job.models) {
    transaction.Execute(
        "INSERT INTO job_models (job, tenant, model) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        sequence, job.tenant, model);
  }
}

// FAILED_PRECONDITION naming an input of the job that is not there any more. The others stay while
// the transaction lasts, and then while the job is not finished: its inputs name the rows that it
// will read, which may be published ones now or the tenant's own.
absl::Status CheckInputs(SqlTransaction& transaction, absl::string_view tenant, int64_t job,
                         absl::string_view id) {
  std::vector<ResourceReference> inputs;
  {
    const auto rows =
        transaction.Query("SELECT kind, id FROM job_inputs WHERE job = $1 ORDER BY kind, id", job);
    while (rows->Next()) {
      inputs.push_back({.kind = static_cast<ResourceKind>(rows->Integer(0)), .id = rows->Text(1)});
    }
  }
  for (const ResourceReference& input : inputs) {
    const auto resource = GetResource(transaction, tenant, input.kind, input.id, kReading);
    if (!resource.ok()) {
      return ErrorWithReason(
          absl::StatusCode::kFailedPrecondition, "INPUT_DELETED",
          absl::StrCat("`jobs/", id, "` reads `", ResourceName(input.kind, input.id),
                       "`, which was deleted or withdrawn; create a new job"));
    }
    transaction.Execute(
        "UPDATE job_inputs SET tenant = $1 WHERE job = $2 AND kind = $3 AND id = $4"
        " AND tenant <> $1",
        resource->tenant, job, static_cast<int64_t>(input.kind), input.id);
  }
  return absl::OkStatus();
}

absl::Status CheckIsNoChild(const Job& job) {
  if (job.parent.empty()) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "CHILD_JOB",
                         absl::StrCat("`jobs/", job.id, "` is a part of `jobs/", job.parent,
                                      "`: cancel, retry or delete that one"));
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

constexpr char kUnsuccessful[] = "(5, 6)", kAnyState[] = "(1, 2, 3, 4, 5, 6)";

std::string IdOf(SqlTransaction& transaction, int64_t sequence) {
  const auto row = transaction.Query("SELECT id FROM jobs WHERE sequence = $1", sequence);
  return row->Next() ? row->Text(0) : "";
}

// A job that failed or was cancelled, from where it was.
absl::Status Requeue(SqlTransaction& transaction, absl::string_view tenant, int64_t sequence) {
  VS_RETURN_IF_ERROR(CheckInputs(transaction, tenant, sequence, IdOf(transaction, sequence)));
  transaction.Execute(
      "UPDATE jobs SET state = 1, attempts = attempts + 1, finished_at = NULL,"
      " error_code = NULL, error_reason = NULL, error_message = NULL,"
      " error_shard = NULL WHERE sequence = $1",
      sequence);
  transaction.Execute("UPDATE steps SET failures = 0, not_before = 0 WHERE state = 0 AND job = $1",
                      sequence);
  transaction.Execute("UPDATE steps SET restarts = 0 WHERE restarts > 0 AND job = $1", sequence);
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
  const std::vector<std::string> of_steps = StepBlobsOf(transaction, sequence);
  DropPartials(transaction, sequence);
  transaction.Execute("DELETE FROM jobs WHERE sequence = $1", sequence);
  MarkIfUnnamed(transaction, blobs);
  MarkIfUnnamed(transaction, of_steps);
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
