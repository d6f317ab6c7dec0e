#include "store/sqlite_database.h"

#include <sqlite3.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <new>
#include <system_error>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "store/sqlite_tables.h"

namespace valuescope::store {
namespace {

constexpr int kBusyTimeoutMilliseconds = 2000;

class SqliteRows : public SqlRows {
 public:
  // The connection outlives it.
  SqliteRows(SqliteConnection& connection, std::unique_ptr<SQLite::Statement> statement)
      : connection_(connection), statement_(std::move(statement)) {}
  ~SqliteRows() override { connection_.Keep(std::move(statement_)); }

  bool Next() override { return statement_->executeStep(); }
  bool IsNull(int column) override { return statement_->getColumn(column).isNull(); }
  int64_t Integer(int column) override { return statement_->getColumn(column).getInt64(); }
  std::string Text(int column) override { return statement_->getColumn(column).getString(); }

 private:
  SqliteConnection& connection_;
  std::unique_ptr<SQLite::Statement> statement_;
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
  SqliteTransaction(SqliteConnection& connection, absl::Time now)
      : connection_(connection), now_(now) {}

  absl::Time now() const override { return now_; }
  absl::string_view NowInSql() const override { return ""; }
  absl::string_view Locking(absl::string_view clause) const override { return ""; }
  absl::string_view ElementsOfFirst() const override { return "json_each($1)"; }
  void Announce(const JobChange& change) override {}

 protected:
  std::unique_ptr<SqlRows> Run(absl::string_view sql,
                               const std::vector<SqlValue>& values) override {
    std::unique_ptr<SQLite::Statement> statement = connection_.Take(std::string(sql));
    for (size_t i = 0; i < values.size(); ++i) {
      Bind(*statement, absl::StrCat("$", i + 1).c_str(), values[i]);
    }
    return std::make_unique<SqliteRows>(connection_, std::move(statement));
  }
  void Perform(absl::string_view sql, const std::vector<SqlValue>& values) override {
    Run(sql, values)->Next();
  }

 private:
  SqliteConnection& connection_;
  const absl::Time now_;
};

// Times are kept in microseconds, and what is returned at once equals what is read later.
absl::Time InMicroseconds(absl::Time time) {
  return absl::FromUnixMicros(absl::ToUnixMicros(time));
}

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

SqliteConnection::SqliteConnection(const std::string& path, int flags)
    : database_(path, flags, kBusyTimeoutMilliseconds) {}

std::unique_ptr<SQLite::Statement> SqliteConnection::Take(const std::string& sql) {
  const auto kept = statements_.find(sql);
  if (kept == statements_.end()) return std::make_unique<SQLite::Statement>(database_, sql);
  std::unique_ptr<SQLite::Statement> statement = std::move(kept->second);
  statements_.erase(kept);
  return statement;
}

void SqliteConnection::Keep(std::unique_ptr<SQLite::Statement> statement) {
  try {
    // Of a statement that failed this tells the same failure again.
    statement->tryReset();
    statement->clearBindings();
    std::string sql = statement->getQuery();
    statements_.emplace(std::move(sql), std::move(statement));
  } catch (const std::bad_alloc&) {
    // It is compiled again when it is wanted next.
  }
}

SqliteDatabase::SqliteDatabase(std::unique_ptr<FileLock> lock, const std::string& path,
                               const Clock* clock)
    : lock_(std::move(lock)),
      path_(path),
      clock_(clock),
      writer_(path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE) {}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path,
                                                                     const Clock* clock) {
  VS_RETURN_IF_ERROR(RefuseNetworkFileSystem(path));
  VS_ASSIGN_OR_RETURN(std::unique_ptr<FileLock> lock, FileLock::Acquire(path + ".lock"));
  try {
    auto database = absl::WrapUnique(new SqliteDatabase(std::move(lock), path, clock));
    VS_RETURN_IF_ERROR(database->Configure());
    return database;
  } catch (const std::exception& error) {
    return StatusOf(error);
  }
}

absl::Status SqliteDatabase::Run(absl::FunctionRef<absl::Status(SqlTransaction&)> body) {
  absl::MutexLock lock(&mutex_);
  try {
    SQLite::Transaction transaction(writer_.database(), SQLite::TransactionBehavior::IMMEDIATE);
    SqliteTransaction open(writer_, InMicroseconds(clock_->Now()));
    const absl::Status status = body(open);
    if (status.ok()) transaction.commit();
    return status;
  } catch (const std::exception& error) {
    return StatusOf(error);
  }
}

absl::Status SqliteDatabase::RunReading(absl::FunctionRef<absl::Status(SqlTransaction&)> body) {
  try {
    std::unique_ptr<SqliteConnection> reader = TakeReader();
    absl::Status status;
    {
      SQLite::Transaction transaction(reader->database(), SQLite::TransactionBehavior::DEFERRED);
      SqliteTransaction open(*reader, InMicroseconds(clock_->Now()));
      status = body(open);
    }
    KeepReader(std::move(reader));
    return status;
  } catch (const std::exception& error) {
    return StatusOf(error);
  }
}

std::unique_ptr<SqliteConnection> SqliteDatabase::TakeReader() {
  {
    absl::MutexLock lock(&readers_mutex_);
    if (!readers_.empty()) {
      std::unique_ptr<SqliteConnection> reader = std::move(readers_.back());
      readers_.pop_back();
      return reader;
    }
  }
  auto reader = std::make_unique<SqliteConnection>(path_, SQLite::OPEN_READWRITE);
  reader->database().exec("PRAGMA query_only = ON");
  return reader;
}

void SqliteDatabase::KeepReader(std::unique_ptr<SqliteConnection> reader) {
  constexpr size_t kMostKept = 4;
  absl::MutexLock lock(&readers_mutex_);
  if (readers_.size() < kMostKept) readers_.push_back(std::move(reader));
}

absl::Status SqliteDatabase::Configure() {
  absl::MutexLock lock(&mutex_);
  writer_.database().exec("PRAGMA synchronous = FULL");
  writer_.database().exec("PRAGMA foreign_keys = ON");
  return BringToPresentFormat(writer_.database());
}

}  // namespace valuescope::store
