// A file of SQLite: locked, checked and brought to the present format. One connection writes, one
// transaction at a time. Others read, each a state of the database that was committed, while it
// writes (WAL): nobody who reads waits for a commit to reach the disk. Exceptions, SQLiteCpp's and
// others, end here and become Status.
#ifndef VALUESCOPE_STORE_SQLITE_DATABASE_H_
#define VALUESCOPE_STORE_SQLITE_DATABASE_H_

#include <SQLiteCpp/SQLiteCpp.h>

#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "store/file_lock.h"
#include "store/sql_database.h"

namespace valuescope::store {

// The Status of a SQLite result code. Messages carry neither paths nor values.
absl::Status SqliteError(int code);

// What ended a transaction, or the opening of a database, as a Status: SQLite's by its code; where
// the machine had no memory RESOURCE_EXHAUSTED with a retry delay.
absl::Status StatusOf(const std::exception& error);

// True for a file system whose locks SQLite cannot trust (NFS, SMB, AFS, Ceph, ...), by the magic
// number that statfs(2) reports.
bool IsNetworkFileSystem(uint64_t magic);

// A connection and the statements that were compiled for it: the same few texts come again and
// again. Used by one thread at a time.
class SqliteConnection {
 public:
  SqliteConnection(const std::string& path, int flags);

  SQLite::Database& database() { return database_; }

  // The statement of that text, reset, without values; the caller's alone until it is kept.
  std::unique_ptr<SQLite::Statement> Take(const std::string& sql);
  void Keep(std::unique_ptr<SQLite::Statement> statement);

 private:
  SQLite::Database database_;
  std::multimap<std::string, std::unique_ptr<SQLite::Statement>> statements_;
};

class SqliteDatabase : public SqlDatabase {
 public:
  // Errors: see OpenSqliteStore.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path,
                                                              const Clock* clock);

  // A file has one process: there are no others.
  bool IsShared() const override { return false; }
  void Subscribe(std::function<void(const JobChange&)> on_change) override {}

 protected:
  absl::Status Run(absl::FunctionRef<absl::Status(SqlTransaction&)> body) override;
  absl::Status RunReading(absl::FunctionRef<absl::Status(SqlTransaction&)> body) override;

 private:
  SqliteDatabase(std::unique_ptr<FileLock> lock, const std::string& path, const Clock* clock);

  absl::Status Configure();
  // A connection that nobody uses meanwhile. Throws where there is none to be had.
  std::unique_ptr<SqliteConnection> TakeReader();
  void KeepReader(std::unique_ptr<SqliteConnection> reader);

  const std::unique_ptr<FileLock> lock_;
  const std::string path_;
  const Clock* const clock_;
  absl::Mutex mutex_;
  SqliteConnection writer_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex readers_mutex_;
  std::vector<std::unique_ptr<SqliteConnection>> readers_ ABSL_GUARDED_BY(readers_mutex_);
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQLITE_DATABASE_H_
