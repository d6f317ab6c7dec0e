#include "store/postgres_database.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "observability/log.h"
#include "store/postgres_tables.h"

namespace valuescope::store {
namespace {

constexpr int kMostConnections = 8;
// How long a transaction tries to get through a database that is gone, or in its way.
constexpr absl::Duration kPatience = absl::Seconds(5);
// How long it asks whether it was committed: a crashed server has to recover first.
constexpr absl::Duration kPatienceInDoubt = absl::Seconds(30);
constexpr absl::Duration kFirstPause = absl::Milliseconds(20);
constexpr absl::Duration kLongestPause = absl::Milliseconds(500);
// Tokens of transactions that nobody can be in doubt of any more.
constexpr absl::Duration kKeepTokens = absl::Hours(1);
constexpr int64_t kMarksBetweenCleanings = 1000;

constexpr char kBegin[] = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
// For the transaction alone, because behind a pooler the session is not ours. Idle: we, killed,
// standing still or unreachable, while we hold locks that others wait for.
constexpr char kSettings[] =
    "SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '60s', true),"
    " set_config('idle_in_transaction_session_timeout', '10s', true)";
#define MICROSECONDS_NOW "floor(extract(epoch FROM now()) * 1000000)::bigint"

// Until the end of the transaction; `$1`: its token.
constexpr char kHoldToken[] = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";

// Begins where it is constructed.
class PostgresTransaction : public SqlTransaction {
 public:
  explicit PostgresTransaction(PostgresConnection& connection) : connection_(connection) {
    connection_.Perform(kBegin);
    connection_.Perform(kSettings);
  }

  // One that whoever knows its token can wait for.
  PostgresTransaction(PostgresConnection& connection, absl::string_view token)
      : PostgresTransaction(connection) {
    token_ = token;
    held_ = connection_.Query(kHoldToken, {token_});
  }

  absl::Time now() const override {
    if (!now_) {
      const auto rows = connection_.Query("SELECT " MICROSECONDS_NOW);
      rows->Next();
      now_ = absl::FromUnixMicros(rows->Integer(0));
    }
    return *now_;
  }
  absl::string_view NowInSql() const override { return MICROSECONDS_NOW; }
  absl::string_view Locking(absl::string_view clause) const override { return clause; }
  absl::string_view ElementsOfFirst() const override {
    return "json_array_elements(CAST($1 AS json))";
  }
  void Announce(const JobChange& change) override { announced_.push_back(change); }
  const std::vector<JobChange>& announced() const { return announced_; }

  // Leaves its token where the transaction has written. From before anything is sent of its end the
  // token is held: what is still on its way when its connection is lost arrives perhaps, and
  // whoever asks meanwhile has to wait for it.
  void Mark() {
    held_->Next();
    Execute("INSERT INTO commits SELECT $1, " MICROSECONDS_NOW
            " WHERE pg_current_xact_id_if_assigned() IS NOT NULL",
            token_);
  }

  void ForgetTokens() {
    Execute("DELETE FROM commits WHERE committed_at < $1", now() - kKeepTokens);
  }

 protected:
  std::unique_ptr<SqlRows> Run(absl::string_view sql,
                               const std::vector<SqlValue>& values) override {
    return connection_.Query(sql, values);
  }
  void Perform(absl::string_view sql, const std::vector<SqlValue>& values) override {
    connection_.Perform(sql, values);
  }

 private:
  PostgresConnection& connection_;
  absl::string_view token_;                // empty where nobody is to wait for it
  std::unique_ptr<SqlRows> held_;          // whether the token is
  mutable std::optional<absl::Time> now_;  // once it is known
  std::vector<JobChange> announced_;
};

// Pauses that double, until patience ends.
class Backoff {
 public:
  explicit Backoff(absl::Duration patience) : deadline_(Clock::Steady().Now() + patience) {}

  // False, at once, where patience has ended.
  bool Pause() {
    if (Clock::Steady().Now() + pause_ > deadline_) return false;
    absl::SleepFor(pause_);
    pause_ = std::min(2 * pause_, kLongestPause);
    return true;
  }

 private:
  const absl::Time deadline_;
  absl::Duration pause_ = kFirstPause;
};

absl::Status CannotOpen(const PostgresError& error) {
  // libpq's words name what a URL may have wrong: host, port, user, database.
  const std::vector<std::string> lines =
      absl::StrSplit(error.what(), absl::ByAnyChar("\n\t"), absl::SkipEmpty());
  return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_UNREACHABLE",
                         absl::StrCat("cannot use the database: ", absl::StrJoin(lines, " ")));
}

}  // namespace

PostgresDatabase::PostgresDatabase(std::string url) : url_(std::move(url)), process_(NewUuid()) {}

absl::StatusOr<std::unique_ptr<PostgresDatabase>> PostgresDatabase::Open(const std::string& url) {
  try {
    auto connection = std::make_unique<PostgresConnection>(url);
    VS_RETURN_IF_ERROR(BringToPresentFormat(*connection));
    auto database = absl::WrapUnique(new PostgresDatabase(url));
    absl::MutexLock lock(&database->mutex_);
    database->idle_.push_back(std::move(connection));
    return database;
  } catch (const PostgresError& error) {
    return CannotOpen(error);
  }
}

void PostgresDatabase::Subscribe(std::function<void(const JobChange&)> on_change) {
  absl::MutexLock lock(&listener_mutex_);
  listener_.reset();
  if (!on_change) return;
  listener_ = std::make_unique<PostgresListener>(url_, process_, std::move(on_change));
}

std::unique_ptr<PostgresConnection> PostgresDatabase::Borrow() {
  {
    absl::MutexLock lock(&mutex_);
    const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return in_use_ < kMostConnections;
    };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&free), kPatience)) {
      throw PostgresError("every connection is in use", kLockTimeout, /*lost=*/false);
    }
    ++in_use_;
    if (!idle_.empty()) {
      std::unique_ptr<PostgresConnection> connection = std::move(idle_.back());
      idle_.pop_back();
      return connection;
    }
  }
  absl::Cleanup give_up = [this] { Return(nullptr); };
  auto connection = std::make_unique<PostgresConnection>(url_);
  std::move(give_up).Cancel();
  return connection;
}

void PostgresDatabase::Return(std::unique_ptr<PostgresConnection> connection) {
  absl::MutexLock lock(&mutex_);
  --in_use_;
  // An open transaction, and its locks, end with its connection.
  if (connection != nullptr && connection->idle()) idle_.push_back(std::move(connection));
}

void PostgresDatabase::ForgetConnections() {
  absl::MutexLock lock(&mutex_);
  idle_.clear();
}

template <typename Use>
auto PostgresDatabase::WithConnection(Use use) {
  std::unique_ptr<PostgresConnection> connection = Borrow();
  const absl::Cleanup give_back = [&] { Return(std::move(connection)); };
  return use(*connection);
}

absl::Status PostgresDatabase::Run(absl::FunctionRef<absl::Status(SqlTransaction&)> body) {
  return RunPatiently([&] { return RunOnce(body); });
}

absl::Status PostgresDatabase::RunReading(absl::FunctionRef<absl::Status(SqlTransaction&)> body) {
  return RunPatiently([&] { return ReadOnce(body); });
}

absl::Status PostgresDatabase::RunPatiently(absl::FunctionRef<absl::Status()> run) {
  Backoff backoff(kPatience);
  while (true) {
    try {
      return run();
    } catch (const PostgresError& error) {
      if (error.lost()) ForgetConnections();
      if (error.passing() && backoff.Pause()) continue;
      if (error.lost()) {
        observability::Log(observability::LogLevel::kError, "lost the store's database",
                           {{"error", error.what()}});
      }
      return StatusOf(error);
    } catch (const std::exception& error) {
      return StatusOfException(error);
    }
  }
}

absl::Status PostgresDatabase::RunOnce(absl::FunctionRef<absl::Status(SqlTransaction&)> body) {
  const std::string token = NewUuid();
  std::vector<JobChange> announced;
  bool in_doubt = false;
  try {
    return WithConnection([&](PostgresConnection& connection) {
      PostgresTransaction transaction(connection, token);
      const absl::Status status = body(transaction);
      if (!status.ok()) {
        connection.RollBack();
        return status;
      }
      transaction.Mark();
      if (IsTimeToForgetTokens()) transaction.ForgetTokens();
      announced = transaction.announced();
      in_doubt = true;
      connection.Commit([&] { Tell(connection, announced); });
      return status;
    });
  } catch (const PostgresError& error) {
    // One that has written nothing left no token either, and may run again.
    if (!in_doubt || !error.lost() || !WasCommitted(token, announced)) throw;
    return absl::OkStatus();
  }
}

absl::Status PostgresDatabase::ReadOnce(absl::FunctionRef<absl::Status(SqlTransaction&)> body) {
  return WithConnection([&](PostgresConnection& connection) {
    PostgresTransaction transaction(connection);
    const absl::Status status = body(transaction);
    connection.RollBack();
    return status;
  });
}

void PostgresDatabase::Tell(PostgresConnection& connection,
                            const std::vector<JobChange>& announced) {
  for (const JobChange& change : announced) {
    const std::string text = TextOfChange(process_, change);
    connection.Perform("SELECT pg_notify($1, $2)", {absl::string_view(kJobsChannel), text});
  }
}

bool PostgresDatabase::WasCommitted(const std::string& token,
                                    const std::vector<JobChange>& announced) {
  Backoff backoff(kPatienceInDoubt);
  while (true) {
    try {
      return WithConnection([&](PostgresConnection& connection) {
        // Waits for the lost transaction to end, since that holds the token until then.
        PostgresTransaction transaction(connection, token);
        const bool committed =
            transaction.Integer("SELECT 1 FROM commits WHERE token = $1", token).has_value();
        connection.RollBack([&] {
          if (committed) Tell(connection, announced);
        });
        return committed;
      });
    } catch (const PostgresError& error) {
      if (error.lost()) ForgetConnections();
      const bool waiting = error.state() == kLockTimeout;
      if ((!waiting && !error.passing()) || !backoff.Pause()) {
        throw PostgresError(error.what(), kUnknownOutcome, /*lost=*/false);
      }
    }
  }
}

bool PostgresDatabase::IsTimeToForgetTokens() {
  return marks_.fetch_add(1) % kMarksBetweenCleanings == 0;
}

}  // namespace valuescope::store
