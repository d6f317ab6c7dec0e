#include "store/expired_rows.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "store/job_rows.h"
#include "store/partial_rows.h"
#include "store/usage_rows.h"

namespace valuescope::store {
namespace {

constexpr char kSkipping[] = " FOR UPDATE OF j SKIP LOCKED";

struct FinishedJob {
  std::string tenant;
  std::string id;
  int64_t rows = 0;  // that go with it
};

// The jobs that finished first. Not those of which another one still reads an artifact, nor parts
// of others, which go with those, nor one of which a part has yet to stop.
std::vector<FinishedJob> FinishedBy(SqlTransaction& transaction, absl::Time time, int64_t most) {
  std::vector<FinishedJob> jobs;
  const auto rows = transaction.Query(
      absl::StrCat("SELECT j.tenant, j.id, CASE j.state WHEN 4 THEN 1 ELSE j.num_shards + 2 END"
                   " FROM jobs j WHERE j.finished_at IS NOT NULL AND j.finished_at <= $1"
                   " AND NOT EXISTS (SELECT 1 FROM resources r JOIN job_inputs i"
                   "   ON i.tenant = r.tenant AND i.kind = r.kind AND i.id = r.id"
                   "   JOIN jobs reader ON reader.sequence = i.job"
                   "   WHERE r.job_id <> '' AND r.tenant = j.tenant"
                   "     AND reader.state IN (1, 2, 3) AND (r.job_id = j.id"
                   "     OR r.job_id IN (SELECT k.id FROM job_children c JOIN jobs k"
                   "       ON k.sequence = c.job WHERE c.parent = j.sequence)))"
                   " AND NOT EXISTS (SELECT 1 FROM job_children c WHERE c.job = j.sequence)"
                   " AND NOT EXISTS (SELECT 1 FROM job_children c JOIN jobs k ON k.sequence = c.job"
                   "   WHERE c.parent = j.sequence AND k.state IN (1, 2, 3))"
                   " ORDER BY j.finished_at LIMIT $2",
                   transaction.Locking(kSkipping)),
      time, most);
  while (rows->Next()) {
    jobs.push_back({.tenant = rows->Text(0), .id = rows->Text(1), .rows = rows->Integer(2)});
  }
  return jobs;
}

absl::Status ExpireJobs(SqlTransaction& transaction, absl::Time finished_by, int64_t& rows_left,
                        Expired& expired) {
  for (const FinishedJob& job : FinishedBy(transaction, finished_by, rows_left)) {
    if (rows_left <= 0) break;
    VS_RETURN_IF_ERROR(DeleteJob(transaction, job.tenant, job.id));
    rows_left -= job.rows;
    expired.jobs.push_back(job.id);
  }
  return absl::OkStatus();
}

// Of one job's shards, some that have done anything: they are to be done again.
int64_t ClearSteps(SqlTransaction& transaction, int64_t job, int64_t most) {
  std::vector<int64_t> shards;
  const auto rows = transaction.Query(
      "SELECT shard FROM steps WHERE job = $1 AND work_done > 0 ORDER BY shard LIMIT $2", job,
      most);
  while (rows->Next()) shards.push_back(rows->Integer(0));
  ClearShards(transaction, job, shards);
  return static_cast<int64_t>(shards.size());
}

void ExpirePartials(SqlTransaction& transaction, absl::Time finished_by, int64_t& rows_left,
                    Expired& expired) {
  while (rows_left > 0) {
    const std::optional<int64_t> job = transaction.Integer(
        absl::StrCat("SELECT j.sequence FROM jobs j WHERE j.state IN (5, 6) AND j.work_done > 0"
                     " AND j.finished_at <= $1 ORDER BY j.finished_at LIMIT 1",
                     transaction.Locking(kSkipping)),
        finished_by);
    if (!job) return;
    const int64_t cleared = ClearSteps(transaction, *job, rows_left);
    rows_left -= cleared;
    expired.partials += cleared;
  }
}

void ExpireRequestIds(SqlTransaction& transaction, absl::Time used_by, int64_t& rows_left,
                      Expired& expired) {
  if (rows_left <= 0) return;
  const auto rows = transaction.Query(
      absl::StrCat("DELETE FROM requests WHERE (tenant, request_id) IN"
                   " (SELECT j.tenant, j.request_id FROM requests j WHERE j.created_at <= $1"
                   "   ORDER BY j.created_at LIMIT $2",
                   transaction.Locking(kSkipping), ") RETURNING 1"),
      used_by, rows_left);
  while (rows->Next()) {
    ++expired.request_ids;
    --rows_left;
  }
}

}  // namespace

absl::StatusOr<Expired> Expire(SqlTransaction& transaction, const Retention& retention,
                               int64_t most_rows) {
  Expired expired;
  int64_t rows_left = most_rows;
  const absl::Time now = transaction.now();
  const absl::Duration forever = absl::InfiniteDuration();
  if (retention.jobs < forever) {
    VS_RETURN_IF_ERROR(ExpireJobs(transaction, now - retention.jobs, rows_left, expired));
  }
  if (retention.partials < forever) {
    ExpirePartials(transaction, now - retention.partials, rows_left, expired);
  }
  if (retention.request_ids < forever) {
    ExpireRequestIds(transaction, now - retention.request_ids, rows_left, expired);
  }
  if (retention.usage < forever && rows_left > 0) {
    expired.usage = ExpireUsage(transaction, now - retention.usage, rows_left);
    rows_left -= expired.usage;
  }
  expired.more = rows_left <= 0;
  return expired;
}

}  // namespace valuescope::store
