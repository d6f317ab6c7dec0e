// SQL that SQLite and PostgreSQL both speak, so that there is one text of every transaction. It is
// written so that either database may run it:
// - Parameters are $1, $2, ...; integers are 64 bits wide, times microseconds since 1970.
// - SQLite runs one transaction at a time. On PostgreSQL transactions meet (READ COMMITTED), so
//   what a transaction decides by it locks first: the row of the job, then its steps, and of
//   resources the row. Locks are the only text that SQLite does not get (Locking).
// - A transaction may run again from its start (deadlock, a lost connection), so its body must not
//   use up what it was given.
// - PostgreSQL is waited for where a row is asked for, or the time, and at the end; what was sent
//   until then went there together. So what needs no answer is Execute, and of questions that do
//   not need each other's answers all are asked before the first row is.
#ifndef VALUESCOPE_STORE_SQL_DATABASE_H_
#define VALUESCOPE_STORE_SQL_DATABASE_H_

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "store/store.h"

namespace valuescope::store {

// Bound as bytes, where std::string is bound as text. Outlives the call.
struct Bytes {
  const std::string& value;
};

// A parameter: NULL, a number, text (UTF-8) or bytes. Views outlive the call.
using SqlValue = std::variant<std::monostate, int64_t, absl::string_view, Bytes>;

// The rows that a statement gave, from before the first one. Columns count from 0.
class SqlRows {
 public:
  virtual ~SqlRows() = default;
  // Goes to the next row; false behind the last.
  virtual bool Next() = 0;
  virtual bool IsNull(int column) = 0;
  virtual int64_t Integer(int column) = 0;
  virtual std::string Text(int column) = 0;  // of bytes too
};

// A transaction under way. Its functions throw what SqlDatabase::Transact catches.
class SqlTransaction {
 public:
  virtual ~SqlTransaction() = default;

  // The time of everything that happens in this transaction.
  virtual absl::Time now() const = 0;
  // What stands for it in a statement, in microseconds since 1970, where asking for it first would
  // cost a journey to the database; else empty.
  virtual absl::string_view NowInSql() const = 0;

  // A statement with its parameters in order, which is run by the time that its first row is asked
  // for.
  template <typename... Values>
  std::unique_ptr<SqlRows> Query(absl::string_view sql, const Values&... values) {
    return Run(sql, {ValueOf(values)...});
  }

  // The same of a statement that was put together, whose parameters were counted meanwhile.
  std::unique_ptr<SqlRows> QueryWith(absl::string_view sql, const std::vector<SqlValue>& values) {
    return Run(sql, values);
  }

  // Runs a statement whose rows, if any, nobody wants. What is wrong with it may be thrown by a
  // later statement, or end the transaction.
  template <typename... Values>
  void Execute(absl::string_view sql, const Values&... values) {
    Perform(sql, {ValueOf(values)...});
  }

  // First column of the first row; nullopt where there is no row.
  template <typename... Values>
  std::optional<int64_t> Integer(absl::string_view sql, const Values&... values) {
    const std::unique_ptr<SqlRows> rows = Query(sql, values...);
    if (!rows->Next()) return std::nullopt;
    return rows->Integer(0);
  }

  // `clause` ("FOR UPDATE OF j, s") where transactions meet, else nothing.
  virtual absl::string_view Locking(absl::string_view clause) const = 0;

  // What stands in FROM for the elements of the JSON array that is parameter $1, as `value`.
  virtual absl::string_view ElementsOfFirst() const = 0;

  // Tells other processes, once the transaction is committed, that a job changed.
  virtual void Announce(const JobChange& change) = 0;

 protected:
  virtual std::unique_ptr<SqlRows> Run(absl::string_view sql,
                                       const std::vector<SqlValue>& values) = 0;
  virtual void Perform(absl::string_view sql, const std::vector<SqlValue>& values) = 0;

 private:
  static SqlValue ValueOf(int64_t value) { return value; }
  static SqlValue ValueOf(absl::string_view value) { return value; }
  static SqlValue ValueOf(const Bytes& value) { return value; }
  static SqlValue ValueOf(absl::Time value) { return absl::ToUnixMicros(value); }
  template <typename T>
  static SqlValue ValueOf(const std::optional<T>& value) {
    return value ? ValueOf(*value) : SqlValue();
  }
};

// Thread-safe.
class SqlDatabase {
 public:
  virtual ~SqlDatabase() = default;

  // Runs `body` (SqlTransaction& -> Status or StatusOr) in one transaction, which is committed
  // where it returns OK and rolled back where it does not.
  template <typename Body>
  auto Transact(Body&& body) -> std::invoke_result_t<Body, SqlTransaction&> {
    return ResultOf(body, [this](auto run) { return Run(run); });
  }

  // The same of a `body` (-> StatusOr) that writes nothing: it sees one state of the database, and
  // waits for nobody who writes.
  template <typename Body>
  auto Read(Body&& body) -> std::invoke_result_t<Body, SqlTransaction&> {
    return ResultOf(body, [this](auto run) { return RunReading(run); });
  }

  // Whether other processes can be at it.
  virtual bool IsShared() const = 0;

  // Tells `on_change` of what other processes change, until told otherwise; see Store::Subscribe.
  virtual void Subscribe(std::function<void(const JobChange&)> on_change) = 0;

 protected:
  // OK exactly where `body` returned OK and all of it is committed.
  virtual absl::Status Run(absl::FunctionRef<absl::Status(SqlTransaction&)> body) = 0;
  virtual absl::Status RunReading(absl::FunctionRef<absl::Status(SqlTransaction&)> body) = 0;

 private:
  template <typename Body, typename Runner>
  static auto ResultOf(Body& body, const Runner& runner)
      -> std::invoke_result_t<Body, SqlTransaction&> {
    using Result = std::invoke_result_t<Body, SqlTransaction&>;
    std::optional<Result> result;
    const absl::Status status = runner([&](SqlTransaction& transaction) {
      result.emplace(body(transaction));
      if constexpr (std::is_same_v<Result, absl::Status>) {
        return *result;
      } else {
        return result->status();
      }
    });
    if (!status.ok()) return status;
    VS_CHECK(result.has_value());  // or nothing was run
    return *std::move(result);
  }
};

// What ended a transaction, and was no error of its database: where the machine had no memory
// RESOURCE_EXHAUSTED with a retry delay.
absl::Status StatusOfException(const std::exception& error);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_SQL_DATABASE_H_
