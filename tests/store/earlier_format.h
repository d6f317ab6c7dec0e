// Brings a database back to the format in which jobs stood in no lines and had no history, payloads
// lay in the rows of jobs and steps, and servers did not know each other, with what is in it.
#ifndef VALUESCOPE_TESTS_STORE_EARLIER_FORMAT_H_
#define VALUESCOPE_TESTS_STORE_EARLIER_FORMAT_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace valuescope::store {

// SQL, for either database; `bytes` is its type of them.
inline std::string FromLinesToNone(absl::string_view bytes) {
  std::string sql = bytes == "BLOB"
                        ? "DROP TRIGGER job_is_created; DROP TRIGGER job_changes;"
                        : "DROP TRIGGER job_is_created ON jobs; DROP TRIGGER job_changes ON jobs;"
                          "DROP FUNCTION job_is_created(); DROP FUNCTION job_changes();";
  absl::StrAppend(&sql,
                  "DROP TABLE usage; DROP TABLE usage_writers;"
                  "ALTER TABLE resources DROP COLUMN publisher;"
                  "ALTER TABLE resources DROP COLUMN published_at;"
                  "DROP TABLE store_identity;"
                  "DROP TABLE job_children; DROP TABLE job_revisions; DROP TABLE job_states; DROP "
                  "TABLE job_models;"
                  "DROP TABLE job_observed; DROP INDEX jobs_by_count;"
                  "DROP INDEX jobs_by_list_of_state; DROP INDEX jobs_by_list_of_kind;"
                  "DROP INDEX jobs_by_list; CREATE INDEX jobs_by_list ON jobs (tenant, sequence);"
                  "DROP INDEX jobs_queued_since;"
                  "DROP INDEX jobs_finished; DROP INDEX jobs_with_partials;"
                  "DROP INDEX requests_by_age;");
  for (const absl::string_view column : {"metadata", "result", "spec", "request"}) {
    absl::StrAppend(&sql, "ALTER TABLE jobs ADD COLUMN ", column, " ", bytes, ";UPDATE jobs SET ",
                    column, " = (SELECT p.", column,
                    " FROM job_payloads p WHERE p.job = sequence);");
  }
  for (const absl::string_view column : {"cursor", "partial"}) {
    absl::StrAppend(&sql, "ALTER TABLE steps ADD COLUMN ", column, " ", bytes, ";UPDATE steps SET ",
                    column, " = coalesce((SELECT r.", column,
                    " FROM step_results r WHERE r.job = steps.job AND r.shard = steps.shard),"
                    " CAST('' AS ",
                    bytes, "));");
  }
  absl::StrAppend(&sql,
                  "DROP TABLE replicas; DROP TABLE step_blobs;"
                  "UPDATE steps SET state = 0 WHERE state = 3;"
                  "DROP TABLE job_payloads; DROP TABLE step_results; DROP TABLE lines;"
                  "DROP INDEX jobs_ready; DROP INDEX jobs_unfinished; DROP INDEX jobs_queued;"
                  "DROP INDEX steps_open; DROP INDEX steps_leased;"
                  "ALTER TABLE steps DROP COLUMN restarts; ALTER TABLE jobs DROP COLUMN line; "
                  "ALTER TABLE jobs DROP COLUMN ready_at;"
                  "ALTER TABLE tenants DROP COLUMN virtual_time;"
                  "ALTER TABLE tenants DROP COLUMN served_from;"
                  "ALTER TABLE tenants DROP COLUMN stored_bytes;"
                  "CREATE INDEX jobs_by_state ON jobs (state);"
                  "CREATE INDEX jobs_by_work ON jobs (kind, needs) WHERE state IN (1, 2);"
                  "CREATE INDEX steps_by_state ON steps (job, state, shard);"
                  "CREATE INDEX steps_leased ON steps (expires_at) WHERE state = 1;");
  return sql;
}

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_EARLIER_FORMAT_H_
