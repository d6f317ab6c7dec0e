#include "store/postgres_tables.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "observability/log.h"

namespace valuescope::store {
namespace {

constexpr int kOldestServer = 130000;  // has pg_current_xact_id_if_assigned
// Held while tables are made: "VSCP", as in the header of SQLite's file.
constexpr int64_t kMigrationLock = 0x56534350;

constexpr char kFormat1[] = R"sql(
CREATE TABLE store_format (version BIGINT NOT NULL);
INSERT INTO store_format VALUES (1);

CREATE TABLE resources (
  sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant TEXT NOT NULL,
  kind BIGINT NOT NULL,
  id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  format_version BIGINT NOT NULL,
  digest TEXT NOT NULL,
  display_name TEXT NOT NULL,
  media_type TEXT NOT NULL,
  blob_digest TEXT NOT NULL,
  blob_size BIGINT NOT NULL,
  job_id TEXT NOT NULL,
  role TEXT NOT NULL,
  metadata BYTEA NOT NULL,
  UNIQUE (tenant, kind, id)
);
CREATE INDEX resources_by_list ON resources (tenant, kind, sequence);
CREATE INDEX resources_by_job ON resources (job_id) WHERE job_id <> '';
CREATE INDEX resources_by_blob ON resources (blob_digest) WHERE blob_digest <> '';

CREATE TABLE orphaned_blobs (digest TEXT PRIMARY KEY, since BIGINT NOT NULL);

CREATE TABLE requests (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  job_id TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (tenant, request_id)
);
CREATE TABLE request_results (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  position BIGINT NOT NULL,
  kind BIGINT NOT NULL,
  id TEXT NOT NULL,
  PRIMARY KEY (tenant, request_id, position),
  FOREIGN KEY (tenant, request_id) REFERENCES requests ON DELETE CASCADE
);

CREATE TABLE tenants (tenant TEXT PRIMARY KEY, last_turn BIGINT NOT NULL);

CREATE TABLE jobs (
  sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL REFERENCES tenants,
  kind TEXT NOT NULL,
  needs TEXT NOT NULL,
  display_name TEXT NOT NULL,
  priority BIGINT NOT NULL,
  state BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  started_at BIGINT,
  finished_at BIGINT,
  error_code BIGINT,
  error_reason TEXT,
  error_message TEXT,
  error_shard BIGINT,
  num_shards BIGINT NOT NULL,
  shards_done BIGINT NOT NULL DEFAULT 0,
  total_work BIGINT NOT NULL,
  work_done BIGINT NOT NULL DEFAULT 0,
  rescues BIGINT NOT NULL DEFAULT 0,
  attempts BIGINT NOT NULL DEFAULT 1,
  result BYTEA NOT NULL DEFAULT '',
  metadata BYTEA NOT NULL,
  request BYTEA NOT NULL,
  spec BYTEA NOT NULL
);
CREATE INDEX jobs_by_list ON jobs (tenant, sequence);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_work ON jobs (kind, needs) WHERE state IN (1, 2);

CREATE TABLE steps (
  job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
  shard BIGINT NOT NULL,
  state BIGINT NOT NULL DEFAULT 0,
  token TEXT,
  expires_at BIGINT,
  failures BIGINT NOT NULL DEFAULT 0,
  not_before BIGINT NOT NULL DEFAULT 0,
  work_done BIGINT NOT NULL DEFAULT 0,
  cursor BYTEA NOT NULL DEFAULT '',
  partial BYTEA NOT NULL DEFAULT '',
  PRIMARY KEY (job, shard)
);
CREATE INDEX steps_by_state ON steps (job, state, shard);
CREATE INDEX steps_leased ON steps (expires_at) WHERE state = 1;

CREATE TABLE job_inputs (
  job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
  tenant TEXT NOT NULL,
  kind BIGINT NOT NULL,
  id TEXT NOT NULL,
  PRIMARY KEY (job, kind, id)
);
CREATE INDEX job_inputs_by_resource ON job_inputs (tenant, kind, id);

CREATE TABLE job_blobs (
  job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
  digest TEXT NOT NULL,
  PRIMARY KEY (job, digest)
);
CREATE INDEX job_blobs_by_digest ON job_blobs (digest);

CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO counters VALUES ('rescues', 0);

CREATE TABLE commits (token TEXT PRIMARY KEY, committed_at BIGINT NOT NULL);
CREATE INDEX commits_by_age ON commits (committed_at);
)sql";

constexpr char kReplicas[] = R"sql(
CREATE TABLE replicas (
  id TEXT PRIMARY KEY,
  started_at BIGINT NOT NULL,
  seen_at BIGINT NOT NULL,
  kinds TEXT NOT NULL,
  has TEXT NOT NULL,
  record BYTEA NOT NULL
);
)sql";

// Lines make a lease cheap however long the queue is, and a commit however large
// what the job reads and makes: jobs stand in lines, of which the ready ones are an index, and
// payloads have rows of their own.
constexpr char kLines[] = R"sql(
CREATE TABLE lines (
  line BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant TEXT NOT NULL REFERENCES tenants,
  kind TEXT NOT NULL,
  needs TEXT NOT NULL,
  UNIQUE (tenant, kind, needs)
);
INSERT INTO lines (tenant, kind, needs) SELECT DISTINCT tenant, kind, needs FROM jobs;

ALTER TABLE tenants ADD COLUMN virtual_time BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tenants ADD COLUMN served_from BIGINT NOT NULL DEFAULT 0;
ALTER TABLE tenants ADD COLUMN stored_bytes BIGINT NOT NULL DEFAULT 0;
INSERT INTO tenants (tenant, last_turn) SELECT DISTINCT tenant, 0 FROM resources WHERE true
  ON CONFLICT DO NOTHING;
UPDATE tenants SET stored_bytes = (SELECT coalesce(sum(blob_size + octet_length(metadata)), 0)
  FROM resources WHERE resources.tenant = tenants.tenant);

CREATE TABLE job_payloads (
  job BIGINT PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
  metadata BYTEA NOT NULL,
  result BYTEA NOT NULL DEFAULT '',
  spec BYTEA NOT NULL,
  request BYTEA NOT NULL
);
INSERT INTO job_payloads SELECT sequence, metadata, result, spec, request FROM jobs;
ALTER TABLE jobs DROP COLUMN metadata;
ALTER TABLE jobs DROP COLUMN result;
ALTER TABLE jobs DROP COLUMN spec;
ALTER TABLE jobs DROP COLUMN request;

CREATE TABLE step_results (
  job BIGINT NOT NULL,
  shard BIGINT NOT NULL,
  cursor BYTEA NOT NULL,
  partial BYTEA NOT NULL,
  PRIMARY KEY (job, shard),
  FOREIGN KEY (job, shard) REFERENCES steps ON DELETE CASCADE
);
INSERT INTO step_results SELECT job, shard, cursor, partial FROM steps
  WHERE length(cursor) + length(partial) > 0;
ALTER TABLE steps DROP COLUMN cursor;
ALTER TABLE steps DROP COLUMN partial;
UPDATE steps SET state = 3 WHERE shard = -1 AND state = 0
  AND EXISTS (SELECT 1 FROM jobs WHERE sequence = steps.job AND shards_done < num_shards);

ALTER TABLE jobs ADD COLUMN line BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN ready_at BIGINT;
UPDATE jobs SET line = (SELECT lines.line FROM lines WHERE lines.tenant = jobs.tenant
  AND lines.kind = jobs.kind AND lines.needs = jobs.needs);
UPDATE jobs SET ready_at = (SELECT min(not_before) FROM steps WHERE job = sequence AND state = 0)
  WHERE state IN (1, 2);
DROP INDEX jobs_by_state;
DROP INDEX jobs_by_work;
DROP INDEX steps_by_state;
DROP INDEX steps_leased;
CREATE INDEX jobs_ready ON jobs (line, priority DESC, sequence, ready_at)
  WHERE ready_at IS NOT NULL;
CREATE INDEX jobs_unfinished ON jobs (line) WHERE state IN (1, 2);
CREATE INDEX jobs_queued ON jobs (tenant) WHERE state = 1;
CREATE INDEX steps_open ON steps (job, shard, not_before) WHERE state = 0;
CREATE INDEX steps_leased ON steps (job, shard, expires_at) WHERE state = 1;
)sql";

// What kHistory of sqlite_tables.cc brings.
constexpr char kHistory[] = R"sql(
CREATE TABLE job_revisions (
  job BIGINT PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
  revision BIGINT NOT NULL
);
CREATE TABLE job_states (
  job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
  revision BIGINT NOT NULL,
  state BIGINT NOT NULL,
  PRIMARY KEY (job, revision)
);
INSERT INTO job_revisions SELECT sequence, 1 FROM jobs;
INSERT INTO job_states SELECT sequence, 1, state FROM jobs;
CREATE FUNCTION job_is_created() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO job_revisions VALUES (NEW.sequence, 1);
  INSERT INTO job_states VALUES (NEW.sequence, 1, NEW.state);
  RETURN NULL;
END $$;
CREATE TRIGGER job_is_created AFTER INSERT ON jobs
  FOR EACH ROW EXECUTE FUNCTION job_is_created();
CREATE FUNCTION job_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE job_revisions SET revision = revision + 1 WHERE job = NEW.sequence;
  INSERT INTO job_states SELECT job, revision, NEW.state FROM job_revisions
    WHERE job = NEW.sequence AND OLD.state <> NEW.state;
  RETURN NULL;
END $$;
CREATE TRIGGER job_changes AFTER UPDATE OF state, shards_done, work_done, rescues, attempts ON jobs
  FOR EACH ROW
  WHEN (OLD.state <> NEW.state OR OLD.shards_done <> NEW.shards_done
    OR OLD.work_done <> NEW.work_done OR OLD.rescues <> NEW.rescues OR OLD.attempts <> NEW.attempts)
  EXECUTE FUNCTION job_changes();

CREATE TABLE job_observed (
  job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
  name TEXT NOT NULL,
  count BIGINT NOT NULL,
  sum BIGINT NOT NULL,
  sum_of_squares BIGINT NOT NULL,
  PRIMARY KEY (job, name)
);

CREATE TABLE job_models (
  job BIGINT NOT NULL REFERENCES jobs ON DELETE CASCADE,
  tenant TEXT NOT NULL,
  model TEXT NOT NULL,
  PRIMARY KEY (job, model)
);
CREATE INDEX job_models_by_list ON job_models (tenant, model, job);
INSERT INTO job_models
  SELECT DISTINCT sequence, tenant, word FROM jobs, unnest(string_to_array(needs, ' ')) AS word
  WHERE word LIKE 'models/%';

DROP INDEX IF EXISTS jobs_by_state;
DROP INDEX jobs_by_list;
CREATE INDEX jobs_by_list ON jobs (tenant, sequence, created_at, display_name);
CREATE INDEX jobs_by_count ON jobs (state, kind, tenant);
CREATE INDEX jobs_by_list_of_state ON jobs (tenant, state, sequence);
CREATE INDEX jobs_by_list_of_kind ON jobs (tenant, kind, sequence);
CREATE INDEX jobs_queued_since ON jobs (state, created_at) WHERE state = 1;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_with_partials ON jobs (finished_at) WHERE state IN (5, 6) AND work_done > 0;
CREATE INDEX requests_by_age ON requests (created_at);
)sql";

// What kPartialBlobs of sqlite_tables.cc brings.
constexpr char kPartialBlobs[] = R"sql(
ALTER TABLE step_results ADD COLUMN partial_blob TEXT NOT NULL DEFAULT '';
ALTER TABLE step_results ADD COLUMN partial_size BIGINT NOT NULL DEFAULT 0;
CREATE INDEX step_results_by_blob ON step_results (partial_blob) WHERE partial_blob <> '';

CREATE TABLE store_identity (id TEXT NOT NULL);
INSERT INTO store_identity VALUES (CAST(gen_random_uuid() AS TEXT));
)sql";

// What shards write aside while they run, as blobs, beside their partials.
constexpr char kStepBlobs[] = R"sql(
CREATE TABLE step_blobs (
  job BIGINT NOT NULL,
  shard BIGINT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (job, shard, digest),
  FOREIGN KEY (job, shard) REFERENCES step_results ON DELETE CASCADE
);
CREATE INDEX step_blobs_by_digest ON step_blobs (digest);
)sql";

// Jobs that are parts of others.
constexpr char kChildren[] = R"sql(
CREATE TABLE job_children (
  job BIGINT PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
  parent BIGINT NOT NULL REFERENCES jobs,
  phase TEXT NOT NULL,
  UNIQUE (parent, phase)
);
)sql";

// How often each step was begun anew because what it had come to was lost.
constexpr char kRestarts[] = R"sql(
ALTER TABLE steps ADD COLUMN restarts BIGINT NOT NULL DEFAULT 0;
)sql";

// From which format on servers can work with the tables as they are, so that those of a version go
// on beside the next one's, which bring the tables to a format that they do not know.
constexpr char kCompatibility[] = R"sql(
ALTER TABLE store_format ADD COLUMN compatible_from BIGINT NOT NULL DEFAULT 1;
)sql";

// What tenants published, and what they used.
constexpr char kSharing[] = R"sql(
ALTER TABLE resources ADD COLUMN publisher TEXT NOT NULL DEFAULT '';
ALTER TABLE resources ADD COLUMN published_at BIGINT NOT NULL DEFAULT 0;
CREATE TABLE usage (
  tenant TEXT NOT NULL,
  hour BIGINT NOT NULL,
  calls BIGINT NOT NULL DEFAULT 0,
  prompt_tokens BIGINT NOT NULL DEFAULT 0,
  generated_tokens BIGINT NOT NULL DEFAULT 0,
  job_microseconds BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, hour)
);
CREATE INDEX usage_by_hour ON usage (hour);
CREATE TABLE usage_writers (
  writer TEXT PRIMARY KEY,
  batch BIGINT NOT NULL,
  written_at BIGINT NOT NULL
);
)sql";

// Whether servers that know the format before an upgrade can go on with the tables behind it. One
// that adds makes tables, indexes, and columns with a default, and nothing of it has to be heeded
// by who writes; anything else changes.
enum class Effect { kChanges, kAdds };

struct FormatUpgrade {
  const char* script;
  Effect effect;
};

// What leads from each format to the next, from none at all on. Servers of formats before
// kCompatibility know nothing of it.
constexpr std::array<FormatUpgrade, 10> kUpgrades = {{{kFormat1, Effect::kChanges},
                                                      {kReplicas, Effect::kChanges},
                                                      {kLines, Effect::kChanges},
                                                      {kHistory, Effect::kChanges},
                                                      {kPartialBlobs, Effect::kChanges},
                                                      {kStepBlobs, Effect::kChanges},
                                                      {kChildren, Effect::kChanges},
                                                      {kRestarts, Effect::kChanges},
                                                      {kCompatibility, Effect::kChanges},
                                                      {kSharing, Effect::kAdds}}};
constexpr int64_t kPresent = kUpgrades.size();

// The earliest format behind which all upgrades only add.
constexpr int64_t CompatibleFrom() {
  int64_t format = kPresent;
  while (format > 0 && kUpgrades[static_cast<size_t>(format - 1)].effect == Effect::kAdds) --format;
  return format;
}

absl::Status Unfit(absl::string_view reason, absl::string_view message) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, reason, message);
}

absl::Status CheckServer(PostgresConnection& connection) {
  if (connection.server_version() < kOldestServer) {
    return Unfit("STORE_UNSUITABLE", "the database is older than PostgreSQL 13: use a later one");
  }
  if (const std::string encoding = connection.Script("SHOW server_encoding"); encoding != "UTF8") {
    return Unfit("STORE_UNSUITABLE",
                 absl::StrCat("the database's encoding is ", encoding,
                              ": make one with CREATE DATABASE ... ENCODING 'UTF8'"));
  }
  return absl::OkStatus();
}

// Of a column of store_format; nullopt where it is no number.
std::optional<int64_t> FormatNumber(PostgresConnection& connection, absl::string_view column) {
  int64_t number = 0;
  const std::string told = connection.Script(absl::StrCat("SELECT ", column, " FROM store_format"));
  if (!absl::SimpleAtoi(told, &number)) return std::nullopt;
  return number;
}

// Of tables that a newer version has brought to its `format`.
absl::Status CheckCompatible(PostgresConnection& connection, int64_t format) {
  const std::optional<int64_t> from = FormatNumber(connection, "compatible_from");
  if (from && *from <= kPresent) {
    observability::Log(observability::LogLevel::kInfo, "the store is of a newer version",
                       {{"format", format}, {"known", kPresent}});
    return absl::OkStatus();
  }
  return Unfit(
      "STORE_TOO_NEW",
      absl::StrCat("the store has format ", format, ", which servers use that know format ",
                   from.value_or(format), ", this server knows ", kPresent,
                   ": it was made by another version of the server; run that one, or "
                   "start with another store"));
}

// Inside of a transaction. Throws PostgresError.
absl::Status Upgrade(PostgresConnection& connection) {
  // In the schema where tables are made: one of the same name elsewhere is another's.
  const bool empty = connection.Script(
                         "SELECT count(*) FROM pg_tables WHERE tablename = 'store_format' AND "
                         "schemaname = current_schema()") == "0";
  const std::optional<int64_t> format = empty ? 0 : FormatNumber(connection, "version");
  if (!format) {
    return Unfit("NOT_A_STORE", "the database's table store_format is not ours: use another one");
  }
  if (*format > kPresent) return CheckCompatible(connection, *format);
  if (*format == kPresent) return absl::OkStatus();
  for (int64_t step = *format; step < kPresent; ++step) {
    connection.Script(kUpgrades[static_cast<size_t>(step)].script);
  }
  connection.Script(absl::StrCat("UPDATE store_format SET version = ", kPresent,
                                 ", compatible_from = ", CompatibleFrom()));
  return absl::OkStatus();
}

}  // namespace

absl::Status BringToPresentFormat(PostgresConnection& connection) {
  absl::Status status = CheckServer(connection);
  if (!status.ok()) return status;
  try {
    connection.Script(absl::StrCat(
        "BEGIN READ WRITE; SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock(",
        kMigrationLock, ")"));
    status = Upgrade(connection);
    if (!status.ok()) return status;
    connection.Commit();
    return absl::OkStatus();
  } catch (const PostgresError& error) {
    if (error.state() == "42P07") {
      return Unfit("NOT_A_STORE",
                   "the database has tables of another application: use a database, or a schema in "
                   "search_path, of its own");
    }
    if (error.state() == "42501" || error.state() == "3F000") {
      return Unfit("STORE_FORBIDDEN",
                   "the database's user may not make tables: let it own the database, or GRANT "
                   "CREATE, USAGE ON SCHEMA public to it");
    }
    throw;
  }
}

}  // namespace valuescope::store
