// Tables, format 2. Times are microseconds since 1970; sequence numbers are never reused, so lists
// ordered by them are stable.
//
//   store_format     one row: the format version
//   resources        vectors, neuron sets, artifacts' metadata
//   orphaned_blobs   blobs that nothing names, and since when that is known
//   requests         idempotency keys; request_results: the resources that each made, in order
//   tenants          whose turn it is: the tenant with the lowest last_turn is served next
//   jobs             one row a job; shards_done and work_done are sums over its steps, kept in step
//   steps            one row a shard, and one with shard -1 for the merge
//   job_inputs       resources that jobs read
//   job_blobs        blobs that jobs read and nothing else need name
//   counters         sums that outlive deleted jobs
#include "store/sqlite_database.h"

#include <sqlite3.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::store {
namespace {

constexpr int64_t kApplicationId = 0x56534350;  // "VSCP", in the header of the file
constexpr int kBusyTimeoutMilliseconds = 2000;

constexpr char kFormat1[] = R"sql(
CREATE TABLE store_format (version INTEGER NOT NULL) STRICT;

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
// its one kind. A new database goes this way too, so that there is one text of each table.
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
UPDATE store_format SET version = 2;
)sql";

class SqliteRows : public SqlRows {
 public:
  explicit SqliteRows(SQLite::Statement statement) : statement_(std::move(statement)) {}

  bool Next() override { return statement_.executeStep(); }
  bool IsNull(int column) override { return statement_.getColumn(column).isNull(); }
  int64_t Integer(int column) override { return statement_.getColumn(column).getInt64(); }
  std::string Text(int column) override { return statement_.getColumn(column).getString(); }

 private:
  SQLite::Statement statement_;
};

void Bind(SQLite::Statement& statement, const char* name, const SqlValue& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) {
    statement.bind(name, *number);
  } else if (const auto* text = std::get_if<absl::string_view>(&value)) {
    statement.bind(name, std::string(*text));
  } else if (const auto* bytes = std::get_if<Bytes>(&value)) {
    statement.bind(name, bytes->value.data(), static_cast<int>(bytes->value.size()));
  } else {
    statement.bind(name);
  }
}

class SqliteTransaction : public SqlTransaction {
 public:
  SqliteTransaction(SQLite::Database& database, absl::Time now) : database_(database), now_(now) {}

  absl::Time now() const override { return now_; }
  absl::string_view Locking(absl::string_view clause) const override { return ""; }
  absl::string_view ElementsOfFirst() const override { return "json_each($1)"; }
  void Announce(const JobChange& change) override {}

 protected:
  std::unique_ptr<SqlRows> Run(absl::string_view sql,
                               const std::vector<SqlValue>& values) override {
    SQLite::Statement statement(database_, std::string(sql));
    for (size_t i = 0; i < values.size(); ++i) {
      Bind(statement, absl::StrCat("$", i + 1).c_str(), values[i]);
    }
    return std::make_unique<SqliteRows>(std::move(statement));
  }

 private:
  SQLite::Database& database_;
  const absl::Time now_;
};

absl::Status RefuseNetworkFileSystem(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  struct statfs status;
  if (statfs(folder.empty() ? "." : folder.c_str(), &status) != 0) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_UNREACHABLE",
                           "the store's folder does not exist or cannot be read");
  }
  if (!IsNetworkFileSystem(static_cast<uint64_t>(status.f_type))) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NETWORK_FILE_SYSTEM",
                         "the store lies on a network file system, where SQLite's locks cannot be "
                         "trusted: put it on a local disk");
}

}  // namespace

bool IsNetworkFileSystem(uint64_t magic) {
  constexpr std::array<uint32_t, 9> kNetwork = {
      0x6969,      // NFS
      0x517B,      // SMB
      0xFF534D42,  // CIFS
      0xFE534D42,  // SMB2
      0x5346414F,  // AFS
      0x73757245,  // Coda
      0x00C36400,  // Ceph
      0x0BD00BD0,  // Lustre
      0x47504653,  // GPFS
  };
  // f_type is a signed word, so magic numbers above 2^31 may arrive sign-extended.
  return std::find(kNetwork.begin(), kNetwork.end(), static_cast<uint32_t>(magic)) !=
         kNetwork.end();
}

absl::Status StatusOf(const std::exception& error) {
  if (const auto* sqlite = dynamic_cast<const SQLite::Exception*>(&error)) {
    return SqliteError(sqlite->getErrorCode());
  }
  return StatusOfException(error);
}

absl::Status SqliteError(int code) {
  const std::string message = absl::StrCat("the store failed: ", sqlite3_errstr(code));
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_BUSY", message);
    case SQLITE_FULL:
      return ErrorWithReason(absl::StatusCode::kUnavailable, "STORAGE_FULL", message);
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
    case SQLITE_PERM:
    case SQLITE_READONLY:
      return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_UNREACHABLE", message);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorWithReason(absl::StatusCode::kDataLoss, "STORE_DAMAGED", message);
    case SQLITE_TOOBIG:
      return NeverFits("VALUE_TOO_LARGE", message);
    default:
      return ErrorWithReason(absl::StatusCode::kInternal, "STORE_FAILED", message);
  }
}

SqliteDatabase::SqliteDatabase(std::unique_ptr<FileLock> lock, const std::string& path,
                               const Clock* clock)
    : lock_(std::move(lock)),
      clock_(clock),
      database_(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kBusyTimeoutMilliseconds) {}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path,
                                                                     const Clock* clock) {
  VS_RETURN_IF_ERROR(RefuseNetworkFileSystem(path));
  VS_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> lock, FileLock::Acquire(path + ".lock"));
  try {
    auto database = absl::WrapUnique(new SqliteDatabase(std::move(lock), path, clock));
    database->Configure();
    VS_RETURN_IF_ERROR(database->BringToPresentFormat());
    return database;
  } catch (const std::exception& error) {
    return StatusOf(error);
  }
}

absl::Status SqliteDatabase::Run(absl::FunctionRef<absl::Status(SqlTransaction&)> body) {
  absl::MutexLock lock(&mutex_);
  try {
    SQLite::Transaction transaction(database_, SQLite::TransactionBehavior::IMMEDIATE);
    // Times are kept in microseconds, and what is returned at once equals what is read later.
    SqliteTransaction open(database_, absl::FromUnixMicros(absl::ToUnixMicros(clock_->Now())));
    const absl::Status status = body(open);
    if (status.ok()) transaction.commit();
    return status;
  } catch (const std::exception& error) {
    return StatusOf(error);
  }
}

void SqliteDatabase::Configure() {
  absl::MutexLock lock(&mutex_);
  database_.exec("PRAGMA synchronous = FULL");
  database_.exec("PRAGMA foreign_keys = ON");
}

absl::Status SqliteDatabase::BringToPresentFormat() {
  absl::MutexLock lock(&mutex_);
  const int64_t application = database_.execAndGet("PRAGMA application_id").getInt64();
  const bool empty = database_.execAndGet("SELECT count(*) FROM sqlite_schema").getInt() == 0;
  if (application != kApplicationId && !(empty && application == 0)) {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NOT_A_STORE",
                           "the file is a database of another application");
  }
  // Only now, when the file is known to be ours: the journal mode is written into it.
  database_.exec("PRAGMA journal_mode = WAL");
  if (empty) {
    SQLite::Transaction transaction(database_, SQLite::TransactionBehavior::IMMEDIATE);
    database_.exec(absl::StrCat("PRAGMA application_id = ", kApplicationId));
    database_.exec(kFormat1);
    database_.exec("INSERT INTO store_format VALUES (1)");
    database_.exec(kUpgradeFrom1);
    transaction.commit();
    return absl::OkStatus();
  }
  const int64_t format = database_.execAndGet("SELECT version FROM store_format").getInt64();
  if (format == 1) {
    SQLite::Transaction transaction(database_, SQLite::TransactionBehavior::IMMEDIATE);
    database_.exec(kUpgradeFrom1);
    transaction.commit();
    return absl::OkStatus();
  }
  if (format == kDatabaseFormat) return absl::OkStatus();
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "STORE_TOO_NEW",
      absl::StrCat("the store has format ", format, ", this server knows ", kDatabaseFormat,
                   ": it was made by another version of the server; run that one, or start with "
                   "another store"));
}

}  // namespace valuescope::store
