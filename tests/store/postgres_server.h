// A PostgreSQL server of this test program's own (tests/store/run_postgres), with PgBouncer before
// it, and a database in it whose clock the test moves: its search_path finds another now() before
// PostgreSQL's.
#ifndef VALUESCOPE_TESTS_STORE_POSTGRES_SERVER_H_
#define VALUESCOPE_TESTS_STORE_POSTGRES_SERVER_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "store/postgres_connection.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {

class PostgresServer {
 public:
  // The one of this program: started when it is first asked for, ended with the program.
  static PostgresServer& Get();

  PostgresServer();
  ~PostgresServer();

  // Of the database that the functions below are about.
  std::string Url() const;
  std::string PoolerUrl() const;
  std::string folder() const { return folder_ / ""; }

  // Takes everything away, and sets the clock.
  void Clear();
  absl::Time Now();
  void Advance(absl::Duration duration);

  // Statements; first column of the first row of the last.
  std::string Script(const std::string& sql);

  // Kills it as a crash would, and starts it again.
  void Crash();

 private:
  void Start();

  const TemporaryFolder folder_;
  pid_t server_ = -1, pooler_ = -1;
  std::unique_ptr<PostgresConnection> connection_;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_POSTGRES_SERVER_H_
