// One connection to PostgreSQL, by libpq. It is never opened again behind its owner's back: a
// connection that was lost stays lost, so nobody takes a new session for the old one, whose
// transaction and LISTEN are gone. Functions throw PostgresError.
#ifndef VALUESCOPE_STORE_POSTGRES_CONNECTION_H_
#define VALUESCOPE_STORE_POSTGRES_CONNECTION_H_

#include <libpq-fe.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "store/sql_database.h"

namespace valuescope::store {

// SQLSTATEs that are asked for elsewhere.
inline constexpr char kLockTimeout[] = "55P03";
inline constexpr char kUnknownOutcome[] = "08007";

class PostgresError : public std::runtime_error {
 public:
  // `state`: SQLSTATE, empty where the server gave none. `what` may name hosts and values.
  PostgresError(absl::string_view message, absl::string_view state, bool lost)
      : std::runtime_error(std::string(message)), state_(state), lost_(lost) {}

  const std::string& state() const { return state_; }
  // The connection is gone, or could not be had.
  bool lost() const { return lost_; }
  // Another try may go well: the connection is gone, or two transactions met.
  bool passing() const;

 private:
  const std::string state_;
  const bool lost_;
};

// What ended a transaction as a Status, without hosts and values.
absl::Status StatusOf(const PostgresError& error);

class PostgresConnection {
 public:
  // `url`: postgresql://..., completed by libpq's environment (PGPASSFILE, PGPASSWORD, PGSSLMODE).
  // A server that does not answer is given up after seconds, then and later.
  explicit PostgresConnection(const std::string& url);

  // One statement; rows are in binary form. The server keeps its plan where the session is ours. It
  // is under way, with others, until a row is asked for of it or of a later one: what goes there
  // together costs one journey, and an error of one is thrown where it is waited for. After an
  // error the connection is of no use any more.
  std::unique_ptr<SqlRows> Query(absl::string_view sql, const std::vector<SqlValue>& values = {});

  // The same of a statement whose rows nobody wants.
  void Perform(absl::string_view sql, const std::vector<SqlValue>& values = {});

  // Several statements without parameters; first column of the last one's first row, if any.
  std::string Script(const std::string& sql);

  // Ends the transaction and then, in the same journey, does what `after` sends, of which an error
  // is none of the transaction's. Where the connection is lost meanwhile, nobody knows whether it
  // was committed.
  void Commit(absl::FunctionRef<void()> after = [] {});
  void RollBack(absl::FunctionRef<void()> after = [] {});

  // No transaction is open, nothing is under way, and the connection is not known to be lost.
  bool idle() const {
    return under_way_.empty() && PQtransactionStatus(connection_.get()) == PQTRANS_IDLE;
  }
  int server_version() const { return PQserverVersion(connection_.get()); }

  // Between this end and the server nobody gives the statements of one session to several: such a
  // pooler (PgBouncer) carries no LISTEN.
  bool IsDirect();

  // The payload of a notification that has come, or nullopt; throws where the connection is lost.
  std::optional<std::string> TakeNotification();
  int descriptor() const { return PQsocket(connection_.get()); }

 private:
  class Rows;
  struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };
  struct ClearResult {
    void operator()(PGresult* result) const { PQclear(result); }
  };
  using Result = std::unique_ptr<PGresult, ClearResult>;

  // What the server answers to one statement; nothing while that is under way.
  using Reply = std::shared_ptr<Result>;
  Reply Send(absl::string_view sql, const std::vector<SqlValue>& values);
  // `sent`: what libpq said of it.
  Reply UnderWay(int sent);
  // The answers of all that is under way.
  void Await();
  // Sends `end` and what `after` sends; what `end` was answered with.
  Reply End(const char* end, absl::FunctionRef<void()> after);
  // The result, where it is no error.
  Result Check(PGresult* result) const;

  // The name of the statement, which the server is told at its first use.
  const std::string& Prepared(const std::string& sql, const std::vector<Oid>& types);

  const std::unique_ptr<PGconn, Finish> connection_;
  std::deque<Reply> under_way_;
  std::optional<bool> direct_;  // once it is known
  std::map<std::pair<std::string, std::vector<Oid>>, std::string> prepared_;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_POSTGRES_CONNECTION_H_
