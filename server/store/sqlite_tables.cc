// Times are microseconds since 1970; sequence numbers are never reused, so lists
// ordered by them are stable.
//
//   store_format     one row: the format version
//   resources        vectors, neuron sets, artifacts' metadata; what was published is there a
//   second
//                    time, as the tenant shared's, with who published it
//   store_identity   one row: a random id, unlike any other database's
//   orphaned_blobs   blobs that nothing names, and since when that is known; since 0 of partials,
//                    which are nobody else's and go at once
//   requests         idempotency keys; request_results: the resources that each made, in order
//   tenants          what each has had: worker time by weight (virtual_time, microseconds), from
//                    where it was last served (served_from), when that was (last_turn: the highest
//                    is the latest), and what its resources take (stored_bytes)
//   lines            one row for each tenant, kind and needs that ever had a job: where jobs wait
//   jobs             one row a job; shards_done and work_done are sums over its steps, kept in
//   step;
//                    ready_at is when its first open step may be leased, NULL where it has none
//   job_payloads     what is large of a job, apart from what changes often
//   steps            one row a shard, and one with shard -1 for the merge
//   step_results     how far a step is: cursor and partial result, which is a blob
//                    where it is large
//   job_inputs       resources that jobs read
//   job_blobs        blobs that jobs read and nothing else need name
//   step_blobs       blobs that partial results name
//   job_revisions    how often a job changed, counted by a trigger
//   job_states       the revisions in which a job's state changed
//   job_models       models that jobs run on
//   job_observed     sums over the units that a job has done
//   counters         sums that outlive deleted jobs
//   usage            what each tenant used in each hour, which is told by its begin; usage_writers:
//                    processes that count it, and the last batch that each wrote
//   replicas         processes that work on the jobs; lists are JSON
#include "store/sqlite_tables.h"

#include <array>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::store {
namespace {

constexpr int64_t kApplicationId = 0x56534350;  // "VSCP", in the header of the file

constexpr char kFormat1[] = R"sql(
CREATE TABLE store_format (version INTEGER NOT NULL) STRICT;
INSERT INTO store_format VALUES (1);

CREATE TABLE resources (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL,
  kind INTEGER NOT NULL,
  id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  format_version INTEGER NOT NULL,
  digest TEXT NOT NULL,
  display_name TEXT NOT NULL,
  media_type TEXT NOT NULL,
  blob_digest TEXT NOT NULL,
  blob_size INTEGER NOT NULL,
  job_id TEXT NOT NULL,
  role TEXT NOT NULL,
  metadata BLOB NOT NULL,
  UNIQUE (tenant, kind, id)
) STRICT;
CREATE INDEX resources_by_list ON resources (tenant, kind, sequence);
CREATE INDEX resources_by_job ON resources (job_id) WHERE job_id <> '';
CREATE INDEX resources_by_blob ON resources (blob_digest) WHERE blob_digest <> '';

CREATE TABLE orphaned_blobs (digest TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT;

CREATE TABLE requests (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  job_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, request_id)
) STRICT;
CREATE TABLE request_results (
  tenant TEXT NOT NULL,
  request_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  id TEXT NOT NULL,
  PRIMARY KEY (tenant, request_id, position),
  FOREIGN KEY (tenant, request_id) REFERENCES requests ON DELETE CASCADE
) STRICT;

CREATE TABLE tenants (tenant TEXT PRIMARY KEY, last_turn INTEGER NOT NULL) STRICT;

CREATE TABLE jobs (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL REFERENCES tenants,
  kind TEXT NOT NULL,
  display_name TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  finished_at INTEGER,
  error_code INTEGER,
  error_reason TEXT,
  error_message TEXT,
  error_shard INTEGER,
  num_shards INTEGER NOT NULL,
  shards_done INTEGER NOT NULL DEFAULT 0,
  total_work INTEGER NOT NULL,
  work_done INTEGER NOT NULL DEFAULT 0,
  rescues INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 1,
  result BLOB NOT NULL DEFAULT x'',
  metadata BLOB NOT NULL,
  request BLOB NOT NULL,
  spec BLOB NOT NULL
) STRICT;
CREATE INDEX jobs_by_list ON jobs (tenant, sequence);
CREATE INDEX jobs_by_state ON jobs (state);

CREATE TABLE steps (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  shard INTEGER NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  token TEXT,
  expires_at INTEGER,
  failures INTEGER NOT NULL DEFAULT 0,
  not_before INTEGER NOT NULL DEFAULT 0,
  work_done INTEGER NOT NULL DEFAULT 0,
  cursor BLOB NOT NULL DEFAULT x'',
  partial BLOB NOT NULL DEFAULT x'',
  PRIMARY KEY (job, shard)
) STRICT;
CREATE INDEX steps_by_state ON steps (job, state, shard);
CREATE INDEX steps_leased ON steps (expires_at) WHERE state = 1;

CREATE TABLE job_inputs (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  tenant TEXT NOT NULL,
  kind INTEGER NOT NULL,
  id TEXT NOT NULL,
  PRIMARY KEY (job, kind, id)
) STRICT;
CREATE INDEX job_inputs_by_resource ON job_inputs (tenant, kind, id);

CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
INSERT INTO counters VALUES ('rescues', 0);
)sql";

// Format 2 says of a job what it needs and which blobs it reads, which format 1 has in the specs of
// its one kind.
constexpr char kUpgradeFrom1[] = R"sql(
ALTER TABLE jobs ADD COLUMN needs TEXT NOT NULL DEFAULT '';
CREATE INDEX jobs_by_work ON jobs (kind, needs) WHERE state IN (1, 2);
CREATE TABLE job_blobs (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  digest TEXT NOT NULL,
  PRIMARY KEY (job, digest)
) STRICT;
CREATE INDEX job_blobs_by_digest ON job_blobs (digest);
UPDATE jobs SET needs = coalesce('models/' || (CAST(spec AS TEXT) ->> 'model'), '')
  WHERE kind = 'attribute_neurons' AND json_valid(CAST(spec AS TEXT));
INSERT INTO job_blobs SELECT sequence, CAST(spec AS TEXT) ->> 'data_set_blob' FROM jobs
  WHERE kind = 'attribute_neurons' AND json_valid(CAST(spec AS TEXT))
    AND CAST(spec AS TEXT) ->> 'data_set_blob' IS NOT NULL;
)sql";

constexpr char kReplicas[] = R"sql(
CREATE TABLE replicas (
  id TEXT PRIMARY KEY,
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  kinds TEXT NOT NULL,
  has TEXT NOT NULL,
  record BLOB NOT NULL
) STRICT;
)sql";

// Lines make a lease cheap however long the queue is, and a commit however large what the job
// reads and makes: jobs stand in lines, of which the ready ones are an index, and payloads have
// rows of their own.
constexpr char kLines[] = R"sql(
CREATE TABLE lines (
  line INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL REFERENCES tenants,
  kind TEXT NOT NULL,
  needs TEXT NOT NULL,
  UNIQUE (tenant, kind, needs)
) STRICT;
INSERT INTO lines (tenant, kind, needs) SELECT DISTINCT tenant, kind, needs FROM jobs;

ALTER TABLE tenants ADD COLUMN virtual_time INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tenants ADD COLUMN served_from INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tenants ADD COLUMN stored_bytes INTEGER NOT NULL DEFAULT 0;
INSERT INTO tenants (tenant, last_turn) SELECT DISTINCT tenant, 0 FROM resources WHERE true
  ON CONFLICT DO NOTHING;
UPDATE tenants SET stored_bytes = (SELECT coalesce(sum(blob_size + length(metadata)), 0)
  FROM resources WHERE resources.tenant = tenants.tenant);

CREATE TABLE job_payloads (
  job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
  metadata BLOB NOT NULL,
  result BLOB NOT NULL DEFAULT x'',
  spec BLOB NOT NULL,
  request BLOB NOT NULL
) STRICT;
INSERT INTO job_payloads SELECT sequence, metadata, result, spec, request FROM jobs;
ALTER TABLE jobs DROP COLUMN metadata;
ALTER TABLE jobs DROP COLUMN result;
ALTER TABLE jobs DROP COLUMN spec;
ALTER TABLE jobs DROP COLUMN request;

CREATE TABLE step_results (
  job INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  cursor BLOB NOT NULL,
  partial BLOB NOT NULL,
  PRIMARY KEY (job, shard),
  FOREIGN KEY (job, shard) REFERENCES steps ON DELETE CASCADE
) STRICT;
INSERT INTO step_results SELECT job, shard, cursor, partial FROM steps
  WHERE length(cursor) + length(partial) > 0;
ALTER TABLE steps DROP COLUMN cursor;
ALTER TABLE steps DROP COLUMN partial;
UPDATE steps SET state = 3 WHERE shard = -1 AND state = 0
  AND EXISTS (SELECT 1 FROM jobs WHERE sequence = steps.job AND shards_done < num_shards);

ALTER TABLE jobs ADD COLUMN line INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN ready_at INTEGER;
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

// History is a revision of every job and its changes of state, by which watchers go on where they
// were; the models that jobs run on; and indexes for lists, counts and what is swept away. A
// trigger counts the revision, so that no transaction can forget to.
constexpr char kHistory[] = R"sql(
CREATE TABLE job_revisions (
  job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
  revision INTEGER NOT NULL
) STRICT;
CREATE TABLE job_states (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  revision INTEGER NOT NULL,
  state INTEGER NOT NULL,
  PRIMARY KEY (job, revision)
) STRICT, WITHOUT ROWID;
INSERT INTO job_revisions SELECT sequence, 1 FROM jobs;
INSERT INTO job_states SELECT sequence, 1, state FROM jobs;
CREATE TRIGGER job_is_created AFTER INSERT ON jobs BEGIN
  INSERT INTO job_revisions VALUES (NEW.sequence, 1);
  INSERT INTO job_states VALUES (NEW.sequence, 1, NEW.state);
END;
CREATE TRIGGER job_changes AFTER UPDATE OF state, shards_done, work_done, rescues, attempts ON jobs
WHEN OLD.state <> NEW.state OR OLD.shards_done <> NEW.shards_done OR OLD.work_done <> NEW.work_done
  OR OLD.rescues <> NEW.rescues OR OLD.attempts <> NEW.attempts
BEGIN
  UPDATE job_revisions SET revision = revision + 1 WHERE job = NEW.sequence;
  INSERT INTO job_states SELECT job, revision, NEW.state FROM job_revisions
    WHERE job = NEW.sequence AND OLD.state <> NEW.state;
END;

CREATE TABLE job_observed (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  name TEXT NOT NULL,
  count INTEGER NOT NULL,
  sum INTEGER NOT NULL,
  sum_of_squares INTEGER NOT NULL,
  PRIMARY KEY (job, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_models (
  job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
  model TEXT NOT NULL,
  tenant TEXT NOT NULL,  -- behind the key, else SQLite 3.40's integrity_check finds NULLs
  PRIMARY KEY (job, model)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_models_by_list ON job_models (tenant, model, job);
INSERT INTO job_models (job, tenant, model)
  WITH RECURSIVE words (job, tenant, word, rest) AS (
    SELECT sequence, tenant, '', needs || ' ' FROM jobs
    UNION ALL
    SELECT job, tenant, substr(rest, 1, instr(rest, ' ') - 1), substr(rest, instr(rest, ' ') + 1)
      FROM words WHERE rest <> '')
  SELECT DISTINCT job, tenant, word FROM words WHERE word LIKE 'models/%';

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

// Large partials are blobs, so that a commit is small whatever a shard has come to; and blobs are
// told whose they are.
constexpr char kPartialBlobs[] = R"sql(
ALTER TABLE step_results ADD COLUMN partial_blob TEXT NOT NULL DEFAULT '';
ALTER TABLE step_results ADD COLUMN partial_size INTEGER NOT NULL DEFAULT 0;
CREATE INDEX step_results_by_blob ON step_results (partial_blob) WHERE partial_blob <> '';

CREATE TABLE store_identity (id TEXT NOT NULL) STRICT;
INSERT INTO store_identity VALUES (lower(hex(randomblob(16))));
)sql";

// What shards write aside while they run, as blobs, beside their partials.
constexpr char kStepBlobs[] = R"sql(
CREATE TABLE step_blobs (
  job INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (job, shard, digest),
  FOREIGN KEY (job, shard) REFERENCES step_results ON DELETE CASCADE
) STRICT;
CREATE INDEX step_blobs_by_digest ON step_blobs (digest);
)sql";

// Jobs that are parts of others.
constexpr char kChildren[] = R"sql(
CREATE TABLE job_children (
  job INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
  parent INTEGER NOT NULL REFERENCES jobs,
  phase TEXT NOT NULL,
  UNIQUE (parent, phase)
) STRICT;
)sql";

// How often each step was begun anew because what it had come to was lost.
constexpr char kRestarts[] = R"sql(
ALTER TABLE steps ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
)sql";

// What tenants published, and what they used.
constexpr char kSharing[] = R"sql(
ALTER TABLE resources ADD COLUMN publisher TEXT NOT NULL DEFAULT '';
ALTER TABLE resources ADD COLUMN published_at INTEGER NOT NULL DEFAULT 0;
CREATE TABLE usage (
  tenant TEXT NOT NULL,
  hour INTEGER NOT NULL,
  calls INTEGER NOT NULL DEFAULT 0,
  prompt_tokens INTEGER NOT NULL DEFAULT 0,
  generated_tokens INTEGER NOT NULL DEFAULT 0,
  job_microseconds INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, hour)
) STRICT;
CREATE INDEX usage_by_hour ON usage (hour);
CREATE TABLE usage_writers (
  writer TEXT PRIMARY KEY,
  batch INTEGER NOT NULL,
  written_at INTEGER NOT NULL
) STRICT;
)sql";

// What leads from each format to the next, from none at all on: a new database goes all the way, so
// that there is one text of each table.
constexpr std::array<const char*, 10> kUpgrades = {kFormat1,  kUpgradeFrom1, kReplicas,  kLines,
                                                   kHistory,  kPartialBlobs, kStepBlobs, kChildren,
                                                   kRestarts, kSharing};

}  // namespace

absl::Status BringToPresentFormat(SQLite::Database& database) {
  constexpr int64_t kPresent = kUpgrades.size();
  const int64_t application = database.execAndGet("PRAGMA application_id").getInt64();
  const bool empty = database.execAndGet("SELECT count(*) FROM sqlite_schema").getInt() == 0;
  if (application != kApplicationId && !(empty && application == 0)) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NOT_A_STORE",
                           "the file is a database of another application");
  }
  // Only now, when the file is known to be ours: the journal mode is written into it.
  database.exec("PRAGMA journal_mode = WAL");
  const int64_t format =
      empty ? 0 : database.execAndGet("SELECT version FROM store_format").getInt64();
  if (format > kPresent) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "STORE_TOO_NEW",
        absl::StrCat("the store has format ", format, ", this server knows ", kPresent,
                     ": it was made by another version of the server; run that one, or start with "
                     "another store"));
  }
  if (format == kPresent) return absl::OkStatus();
  SQLite::Transaction transaction(database, SQLite::TransactionBehavior::IMMEDIATE);
  database.exec(absl::StrCat("PRAGMA application_id = ", kApplicationId));
  for (int64_t step = format; step < kPresent; ++step) {
    database.exec(kUpgrades[static_cast<size_t>(step)]);
  }
  database.exec(absl::StrCat("UPDATE store_format SET version = ", kPresent));
  transaction.commit();
  return absl::OkStatus();
}

}  // namespace valuescope::store
