// A database in PostgreSQL that several servers share: connections, transactions, and what goes
// wrong with them.
//
// A transaction whose connection was lost, or that met another one, runs again from its start; what
// is waited for it is bounded. Where the connection is lost at COMMIT it may or may not be
// committed, or still about to be. So every transaction holds a token of its own in a lock before
// it sends its COMMIT, and leaves it in the table commits where it wrote; whoever doubts takes the
// same lock, which waits for the lost transaction to end, and then finds the token or does not. A
// transaction that runs again is fenced as the first time, by its lease or its request id.
//
// All of it goes through a pooler that gives a session away after each transaction (PgBouncer):
// settings are SET LOCAL, locks end with the transaction, and statements are prepared only where
// the session is seen to be ours.
#ifndef VALUESCOPE_STORE_POSTGRES_DATABASE_H_
#define VALUESCOPE_STORE_POSTGRES_DATABASE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "store/postgres_connection.h"
#include "store/postgres_listener.h"
#include "store/sql_database.h"

namespace valuescope::store {

class PostgresDatabase : public SqlDatabase {
 public:
  // Errors: see OpenPostgresStore.
  static absl::StatusOr<std::unique_ptr<PostgresDatabase>> Open(const std::string& url);

  bool IsShared() const override { return true; }
  void Subscribe(std::function<void(const JobChange&)> on_change) override;

 protected:
  absl::Status Run(absl::FunctionRef<absl::Status(SqlTransaction&)> body) override;
  // Readers wait for nobody in any transaction.
  absl::Status RunReading(absl::FunctionRef<absl::Status(SqlTransaction&)> body) override;

 private:
  explicit PostgresDatabase(std::string url);

  // Calls `run` (-> Status) until it throws nothing that passes, or patience ends.
  absl::Status RunPatiently(absl::FunctionRef<absl::Status()> run);
  // Throw what ended it.
  absl::Status RunOnce(absl::FunctionRef<absl::Status(SqlTransaction&)> body);
  absl::Status ReadOnce(absl::FunctionRef<absl::Status(SqlTransaction&)> body);
  // Of a transaction whose connection was lost at COMMIT; tells others where it was. Throws where
  // that cannot be told.
  bool WasCommitted(const std::string& token, const std::vector<JobChange>& announced);
  // Sends what other processes are to hear. Behind a transaction and not in it: those that announce
  // something commit one at a time, and each would wait for the disk meanwhile.
  void Tell(PostgresConnection& connection, const std::vector<JobChange>& announced);
  bool IsTimeToForgetTokens();

  // Calls `use` with a connection that is nobody else's meanwhile.
  template <typename Use>
  auto WithConnection(Use use);
  std::unique_ptr<PostgresConnection> Borrow();
  void Return(std::unique_ptr<PostgresConnection> connection);
  // When one is lost, so are those that nobody uses, most likely: each would cost another try.
  void ForgetConnections();

  const std::string url_;
  const std::string process_;  // names this one in notifications
  absl::Mutex mutex_;
  std::vector<std::unique_ptr<PostgresConnection>> idle_ ABSL_GUARDED_BY(mutex_);
  int in_use_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<int64_t> marks_ = 0;  // transactions that left a token
  absl::Mutex listener_mutex_;
  std::unique_ptr<PostgresListener> listener_ ABSL_GUARDED_BY(listener_mutex_);
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_POSTGRES_DATABASE_H_
