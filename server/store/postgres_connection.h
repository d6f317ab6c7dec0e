// One connection to PostgreSQL, by libpq. It is never opened again behind its owner's back: a
// connection that was lost stays lost, so nobody takes a new session for the old one, whose
// transaction and LISTEN are gone. Functions throw PostgresError.
#ifndef VALUESCOPE_STORE_POSTGRES_CONNECTION_H_
#define VALUESCOPE_STORE_POSTGRES_CONNECTION_H_

#include <libpq-fe.h>

#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

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

  // One statement; rows are in binary form. The server keeps its plan where the session is ours.
  std::unique_ptr<SqlRows> Query(absl::string_view sql, const std::vector<SqlValue>& values = {});

  // Several statements without parameters; first column of the last one's first row, if any.
  std::string Script(const std::string& sql);

  // Ends the transaction. Where the connection is lost meanwhile, nobody knows whether it did.
  void Commit();

  // No transaction is open, and the connection is not known to be lost.
  bool idle() const { return PQtransactionStatus(connection_.get()) == PQTRANS_IDLE; }
  int server_version() const { return PQserverVersion(connection_.get()); }

  // Between this end and the server nobody gives the statements of one session to several: such a
  // pooler (PgBouncer) carries no LISTEN.
  bool IsDirect();

  // The payload of a notification that has come, or nullopt; throws where the connection is lost.
  std::optional<std::string> TakeNotification();
  int descriptor() const { return PQsocket(connection_.get()); }

 private:
  struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };

  // The name of the statement, which the server is told at its first use.
  const std::string& Prepared(const std::string& sql, const std::vector<Oid>& types);

  const std::unique_ptr<PGconn, Finish> connection_;
  std::optional<bool> direct_;  // once it is known
  std::map<std::pair<std::string, std::vector<Oid>>, std::string> prepared_;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_POSTGRES_CONNECTION_H_
