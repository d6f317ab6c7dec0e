// Many queued jobs at once, for what a long queue costs.
#ifndef VALUESCOPE_TESTS_STORE_MANY_JOBS_H_
#define VALUESCOPE_TESTS_STORE_MANY_JOBS_H_

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace valuescope::store {

// SQL, for either database: `copies` more of the job of that id, which nobody has begun.
inline std::string CopiesOfJob(absl::string_view id, int64_t copies) {
  return absl::StrCat(
      "INSERT INTO jobs (id, tenant, kind, needs, display_name, priority, state, created_at,"
      " num_shards, total_work, line, ready_at)"
      " WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ",
      copies,
      ") SELECT id || '-' || i, tenant, kind, needs, display_name, priority, state, created_at,"
      " num_shards, total_work, line, ready_at FROM jobs, n WHERE id = '",
      id, "'; INSERT INTO steps (job, shard, state) SELECT c.sequence, s.shard, s.state",
      " FROM jobs j JOIN steps s ON s.job = j.sequence, jobs c WHERE j.id = '", id,
      "' AND c.id LIKE '", id, "-%'; INSERT INTO job_payloads",
      " SELECT c.sequence, p.metadata, p.result, p.spec, p.request",
      " FROM jobs j JOIN job_payloads p ON p.job = j.sequence, jobs c WHERE j.id = '", id,
      "' AND c.id LIKE '", id, "-%'");
}

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_MANY_JOBS_H_
