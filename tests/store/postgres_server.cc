#include "tests/store/postgres_server.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"

namespace valuescope::store {
namespace {

constexpr char kRunPostgres[] = VALUESCOPE_SOURCE_DIR "/tests/store/run_postgres";
constexpr int64_t kStart = 1'700'000'000'000'000;

pid_t Spawn(const std::string& folder, const char* option) {
  const pid_t child = fork();
  if (child != 0) return child;
  if (*option != '\0') {
    execl(kRunPostgres, kRunPostgres, option, folder.c_str(), nullptr);
  } else {
    execl(kRunPostgres, kRunPostgres, folder.c_str(), nullptr);
  }
  _exit(127);
}

void End(pid_t child, int signal) {
  if (child < 0) return;
  kill(child, signal);
  waitpid(child, /*status=*/nullptr, /*options=*/0);
}

std::string UrlOf(const std::string& folder, const std::string& database, int port) {
  return absl::StrCat("postgresql://postgres@/", database, "?host=", folder, "&port=", port);
}

// Until `child` answers; the test ends where it has ended instead.
std::unique_ptr<PostgresConnection> Connect(const std::string& url, pid_t child) {
  while (true) {
    try {
      return std::make_unique<PostgresConnection>(url);
    } catch (const PostgresError& error) {
      if (waitpid(child, /*status=*/nullptr, WNOHANG) == child) {
        std::fprintf(stderr, "the database did not start: %s\n", error.what());
        std::exit(1);
      }
      absl::SleepFor(absl::Milliseconds(10));
    }
  }
}

}  // namespace

PostgresServer& PostgresServer::Get() {
  static PostgresServer server;
  return server;
}

PostgresServer::PostgresServer() {
  Start();
  Connect(UrlOf(folder(), "postgres", 5432), server_)->Script("CREATE DATABASE store");
  connection_ = Connect(Url(), server_);
  Script("ALTER DATABASE store SET search_path = test, pg_catalog");
  connection_ = Connect(Url(), server_);
  pooler_ = Spawn(folder(), "--pooler");
  Connect(PoolerUrl(), pooler_);
}

PostgresServer::~PostgresServer() {
  End(pooler_, SIGTERM);
  End(server_, SIGQUIT);
}

std::string PostgresServer::Url() const { return UrlOf(folder(), "store", 5432); }
std::string PostgresServer::PoolerUrl() const { return UrlOf(folder(), "store", 6432); }

void PostgresServer::Start() {
  server_ = Spawn(folder(), "");
  Connect(UrlOf(folder(), "postgres", 5432), server_);
}

void PostgresServer::Crash() {
  connection_.reset();
  End(server_, SIGQUIT);
  Start();
  connection_ = Connect(Url(), server_);
}

std::string PostgresServer::Script(const std::string& sql) { return connection_->Script(sql); }

void PostgresServer::Clear() {
  Script(
      absl::StrCat("DROP SCHEMA IF EXISTS test CASCADE; CREATE SCHEMA test;"
                   "CREATE TABLE test.clock (microseconds BIGINT);"
                   "INSERT INTO test.clock VALUES (",
                   kStart,
                   ");"
                   "CREATE FUNCTION test.now() RETURNS timestamptz STABLE LANGUAGE sql AS"
                   " 'SELECT to_timestamp(0) + microseconds * interval ''1 microsecond''"
                   "  FROM test.clock'"));
}

absl::Time PostgresServer::Now() {
  int64_t microseconds = 0;
  VS_CHECK(absl::SimpleAtoi(Script("SELECT microseconds FROM test.clock"), &microseconds));
  return absl::FromUnixMicros(microseconds);
}

void PostgresServer::Advance(absl::Duration duration) {
  Script(absl::StrCat("UPDATE test.clock SET microseconds = microseconds + ",
                      absl::ToInt64Microseconds(duration)));
}

}  // namespace valuescope::store
