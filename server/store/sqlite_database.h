// One SQLite connection: opened, locked, checked and brought to the present format; used one
// transaction at a time. Exceptions, SQLiteCpp's and others, end here and become Status.
#ifndef VALUESCOPE_STORE_SQLITE_DATABASE_H_
#define VALUESCOPE_STORE_SQLITE_DATABASE_H_

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "store/file_lock.h"

namespace valuescope::store {

// Format of the tables that this code reads and writes.
inline constexpr int64_t kDatabaseFormat = 2;

// Bound as BLOB, where std::string is bound as TEXT.
struct Bytes {
  const std::string& value;
};

// A transaction under way. Its functions throw SQLite::Exception; SqliteDatabase::Transact catches.
class SqliteTransaction {
 public:
  SqliteTransaction(SQLite::Database& database, absl::Time now) : database_(database), now_(now) {}

  // The time of everything that happens in this transaction.
  absl::Time now() const { return now_; }

  // A statement with its parameters bound in order.
  template <typename... Values>
  SQLite::Statement Query(const char* sql, const Values&... values) {
    SQLite::Statement statement(database_, sql);
    int index = 0;
    (Bind(statement, ++index, values), ...);
    return statement;
  }

  // Runs a statement that returns no rows; how many rows it changed.
  template <typename... Values>
  int Execute(const char* sql, const Values&... values) {
    return Query(sql, values...).exec();
  }

  // First column of the first row; nullopt where there is no row.
  template <typename... Values>
  std::optional<int64_t> Integer(const char* sql, const Values&... values) {
    SQLite::Statement statement = Query(sql, values...);
    if (!statement.executeStep()) return std::nullopt;
    return statement.getColumn(0).getInt64();
  }

  int64_t LastSequence() const { return database_.getLastInsertRowid(); }

 private:
  static void Bind(SQLite::Statement& statement, int index, int64_t value) {
    statement.bind(index, value);
  }
  static void Bind(SQLite::Statement& statement, int index, absl::string_view value) {
    statement.bind(index, std::string(value));
  }
  static void Bind(SQLite::Statement& statement, int index, const Bytes& value) {
    statement.bind(index, value.value.data(), static_cast<int>(value.value.size()));
  }
  static void Bind(SQLite::Statement& statement, int index, absl::Time value) {
    statement.bind(index, absl::ToUnixMicros(value));
  }
  template <typename T>
  static void Bind(SQLite::Statement& statement, int index, const std::optional<T>& value) {
    if (value) {
      Bind(statement, index, *value);
    } else {
      statement.bind(index);
    }
  }

  SQLite::Database& database_;
  const absl::Time now_;
};

// The Status of a SQLite result code. Messages carry neither paths nor values.
absl::Status SqliteError(int code);

// What ended a transaction, or the opening of a database, as a Status: SQLite's by its code; where
// the machine had no memory RESOURCE_EXHAUSTED with a retry delay.
absl::Status StatusOf(const std::exception& error);

// True for a file system whose locks SQLite cannot trust (NFS, SMB, AFS, Ceph, ...), by the magic
// number that statfs(2) reports.
bool IsNetworkFileSystem(uint64_t magic);

// Thread-safe.
class SqliteDatabase {
 public:
  // Errors: see OpenSqliteStore.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path,
                                                              const Clock* clock);

  // Runs `body` (SqliteTransaction& -> Status or StatusOr) in one transaction, which is committed
  // where it returns OK and rolled back where it does not.
  template <typename Body>
  auto Transact(Body&& body) -> std::invoke_result_t<Body, SqliteTransaction&> {
    absl::MutexLock lock(&mutex_);
    try {
      SQLite::Transaction transaction(database_, SQLite::TransactionBehavior::IMMEDIATE);
      // Times are kept in microseconds, and what is returned at once equals what is read later.
      SqliteTransaction open(database_, absl::FromUnixMicros(absl::ToUnixMicros(clock_->Now())));
      auto result = body(open);
      if (result.ok()) transaction.commit();
      return result;
    } catch (const std::exception& error) {
      return StatusOf(error);
    }
  }

 private:
  SqliteDatabase(std::unique_ptr<FileLock> lock, const std::string& path, const Clock* clock);

  void Configure();
  absl::Status BringToPresentFormat();

  const std::unique_ptr<FileLock> lock_;
  const Clock* const clock_;
  absl::Mutex mutex_;
  SQLite::Database database_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQLITE_DATABASE_H_
