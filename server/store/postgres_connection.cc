#include "store/postgres_connection.h"

#include <array>
#include <cstdint>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::store {
namespace {

// Types of parameters, as PostgreSQL's catalogue numbers them.
constexpr Oid kBytesType = 17, kIntegerType = 20, kTextType = 25;
constexpr int kTextFormat = 0, kBinaryFormat = 1;

// What a statement is sent with. Points into the values.
class Parameters {
 public:
  explicit Parameters(const std::vector<SqlValue>& values) {
    numbers_.reserve(values.size());  // what is pointed to must not move
    for (const SqlValue& value : values) {
      if (const auto* number = std::get_if<int64_t>(&value)) {
        numbers_.push_back(absl::StrCat(*number));
        Add(kIntegerType, kTextFormat, numbers_.back());
      } else if (const auto* text = std::get_if<absl::string_view>(&value)) {
        Add(kTextType, kBinaryFormat, *text);
      } else if (const auto* bytes = std::get_if<Bytes>(&value)) {
        Add(kBytesType, kBinaryFormat, bytes->value);
      } else {
        Add(/*type=*/0, kTextFormat, absl::string_view());
        data.back() = nullptr;
      }
    }
  }

  std::vector<Oid> types;
  std::vector<const char*> data;
  std::vector<int> lengths, formats;

 private:
  void Add(Oid type, int format, absl::string_view value) {
    types.push_back(type);
    // Nothing is not NULL.
    data.push_back(value.data() == nullptr ? "" : value.data());
    lengths.push_back(static_cast<int>(value.size()));
    formats.push_back(format);
  }

  std::vector<std::string> numbers_;
};

// Of an error without a result: libpq's own.
PostgresError LastError(PGconn* connection) {
  return PostgresError(PQerrorMessage(connection), /*state=*/"", /*lost=*/true);
}

// What a standby says, which has become one perhaps: of a transaction that is to write, of a write.
bool IsReadOnly(absl::string_view state) { return state == "0A000" || state == "25006"; }

PGconn* Connect(const std::string& url) {
  // What stands behind the URL overrides it; what stands before is overridden by it.
  constexpr int kSettings = 10;
  const std::array<const char*, kSettings> names = {
      "connect_timeout",  "keepalives_idle", "keepalives_interval",       "keepalives_count",
      "tcp_user_timeout", "dbname",          "fallback_application_name", "client_encoding",
      /*end=*/nullptr};
  const std::array<const char*, kSettings> values = {
      "5", "10", "5", "3", "15000", url.c_str(), "valuescope-server", "UTF8", nullptr};
  return PQconnectdbParams(names.data(), values.data(), /*expand_dbname=*/1);
}

}  // namespace

// Whoever asks for the first row waits for the server.
class PostgresConnection::Rows : public SqlRows {
 public:
  // The connection outlives it.
  Rows(PostgresConnection& connection, Reply reply)
      : connection_(connection), reply_(std::move(reply)) {}

  bool Next() override {
    if (*reply_ == nullptr) connection_.Await();
    return ++row_ < PQntuples(reply_->get());
  }
  bool IsNull(int column) override { return PQgetisnull(reply_->get(), row_, column) == 1; }

  // The most significant byte comes first, of as many as the column's type has.
  int64_t Integer(int column) override {
    const absl::string_view bytes = Value(column);
    int64_t value = !bytes.empty() && static_cast<signed char>(bytes[0]) < 0 ? -1 : 0;
    for (const char byte : bytes) value = (value << 8) | static_cast<unsigned char>(byte);
    return value;
  }

  std::string Text(int column) override { return std::string(Value(column)); }

 private:
  absl::string_view Value(int column) const {
    return {PQgetvalue(reply_->get(), row_, column),
            static_cast<size_t>(PQgetlength(reply_->get(), row_, column))};
  }

  PostgresConnection& connection_;
  const Reply reply_;
  int row_ = -1;
};

bool PostgresError::passing() const {
  // Transactions that met: serialisation, deadlock, the same row inserted twice. Of several hosts
  // one that cannot be written is left for another.
  return lost_ || IsReadOnly(state_) || state_ == "40001" || state_ == "40P01" || state_ == "23505";
}

absl::Status StatusOf(const PostgresError& error) {
  const std::string& state = error.state();
  const std::string message =
      absl::StrCat("the store failed", state.empty() ? "" : ": PostgreSQL's error ", state);
  if (error.lost() || IsReadOnly(state) || state == "53300" /*connections*/) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_UNREACHABLE",
                           "the store's database cannot be reached or written; try again");
  }
  if (state == kUnknownOutcome) {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_UNREACHABLE",
                           "the store's database was lost while it stored the change, and whether "
                           "it did is not known; look before you try again");
  }
  // Locks that were waited for too long, and transactions that met again and again.
  if (error.passing() || state == kLockTimeout || state == "57014") {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORE_BUSY", message);
  }
  if (state == "53100") {
    return ErrorWithReason(absl::StatusCode::kUnavailable, "STORAGE_FULL", message);
  }
  if (state == "53200") {
    return RetryLater("OUT_OF_MEMORY", "the database has no memory for what is asked of the store",
                      absl::Seconds(1));
  }
  if (absl::StartsWith(state, "XX00")) {
    return ErrorWithReason(absl::StatusCode::kDataLoss, "STORE_DAMAGED", message);
  }
  if (state == "54000") return NeverFits("VALUE_TOO_LARGE", message);
  if (state == "22021" || state == "22P05") {
    return absl::InvalidArgumentError("text must be UTF-8 without NUL");
  }
  return ErrorWithReason(absl::StatusCode::kInternal, "STORE_FAILED", message);
}

PostgresConnection::PostgresConnection(const std::string& url) : connection_(Connect(url)) {
  if (PQstatus(connection_.get()) != CONNECTION_OK) throw LastError(connection_.get());
  // Notices are no errors, and standard error is the log's.
  PQsetNoticeProcessor(
      connection_.get(), [](void*, const char*) {}, nullptr);
}

std::unique_ptr<SqlRows> PostgresConnection::Query(absl::string_view sql,
                                                   const std::vector<SqlValue>& values) {
  return std::make_unique<Rows>(*this, Send(sql, values));
}

void PostgresConnection::Perform(absl::string_view sql, const std::vector<SqlValue>& values) {
  Send(sql, values);
}

PostgresConnection::Reply PostgresConnection::Send(absl::string_view sql,
                                                   const std::vector<SqlValue>& values) {
  const Parameters sent(values);
  const int count = static_cast<int>(values.size());
  // Where that is not known yet nothing is under way.
  if (!IsDirect()) {
    PQenterPipelineMode(connection_.get());
    return UnderWay(PQsendQueryParams(connection_.get(), std::string(sql).c_str(), count,
                                      sent.types.data(), sent.data.data(), sent.lengths.data(),
                                      sent.formats.data(), kBinaryFormat));
  }
  PQenterPipelineMode(connection_.get());
  return UnderWay(PQsendQueryPrepared(
      connection_.get(), Prepared(std::string(sql), sent.types).c_str(), count, sent.data.data(),
      sent.lengths.data(), sent.formats.data(), kBinaryFormat));
}

PostgresConnection::Reply PostgresConnection::UnderWay(int sent) {
  if (sent == 0) throw LastError(connection_.get());
  return under_way_.emplace_back(std::make_shared<Result>());
}

void PostgresConnection::Await() {
  if (PQpipelineSync(connection_.get()) == 0) throw LastError(connection_.get());
  while (!under_way_.empty()) {
    *under_way_.front() = Check(PQgetResult(connection_.get()));
    under_way_.pop_front();
    // A statement has one result, and then their end.
    while (PGresult* const more = PQgetResult(connection_.get())) Check(more);
  }
  const Result end(PQgetResult(connection_.get()));
  if (PQresultStatus(end.get()) != PGRES_PIPELINE_SYNC) throw LastError(connection_.get());
  PQexitPipelineMode(connection_.get());
}

PostgresConnection::Result PostgresConnection::Check(PGresult* result) const {
  Result owned(result);
  if (result == nullptr) throw LastError(connection_.get());
  const ExecStatusType status = PQresultStatus(result);
  if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) return owned;
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  // What the server says has a SQLSTATE; where that means that it closes the connection (it stops,
  // a transaction idled for too long), the connection is as lost as without a word.
  const bool lost =
      state == nullptr || absl::StartsWith(state, "57P0") || absl::string_view(state) == "25P03";
  throw PostgresError(PQresultErrorMessage(result), lost ? "" : state, lost);
}

const std::string& PostgresConnection::Prepared(const std::string& sql,
                                                const std::vector<Oid>& types) {
  const auto known = prepared_.find({sql, types});
  if (known != prepared_.end()) return known->second;
  std::string name = absl::StrCat("s", prepared_.size());
  UnderWay(PQsendPrepare(connection_.get(), name.c_str(), sql.c_str(),
                         static_cast<int>(types.size()), types.data()));
  return prepared_.emplace(std::pair(sql, types), std::move(name)).first->second;
}

std::string PostgresConnection::Script(const std::string& sql) {
  const Result result = Check(PQexec(connection_.get(), sql.c_str()));
  return PQntuples(result.get()) == 0 ? "" : PQgetvalue(result.get(), 0, 0);
}

void PostgresConnection::Commit(absl::FunctionRef<void()> after) {
  const Reply reply = End("COMMIT", after);
  // What COMMIT answers in a transaction that an error has ended.
  if (absl::string_view(PQcmdStatus(reply->get())) == "ROLLBACK") {
    throw PostgresError("the transaction had failed", "25P02", /*lost=*/false);
  }
}

void PostgresConnection::RollBack(absl::FunctionRef<void()> after) { End("ROLLBACK", after); }

PostgresConnection::Reply PostgresConnection::End(const char* end,
                                                  absl::FunctionRef<void()> after) {
  PQenterPipelineMode(connection_.get());
  // Not prepared: there is nothing to plan.
  const Reply reply =
      UnderWay(PQsendQueryParams(connection_.get(), end, /*nParams=*/0, /*paramTypes=*/nullptr,
                                 /*paramValues=*/nullptr, /*paramLengths=*/nullptr,
                                 /*paramFormats=*/nullptr, kBinaryFormat));
  after();
  try {
    Await();
  } catch (const PostgresError&) {
    if (*reply == nullptr) throw;
  }
  return reply;
}

bool PostgresConnection::IsDirect() {
  // A pooler tells a number of its own.
  if (!direct_) {
    direct_ = Script("SELECT pg_backend_pid()") == absl::StrCat(PQbackendPID(connection_.get()));
  }
  return *direct_;
}

std::optional<std::string> PostgresConnection::TakeNotification() {
  if (PQconsumeInput(connection_.get()) == 0) throw LastError(connection_.get());
  struct Free {
    void operator()(PGnotify* notification) const { PQfreemem(notification); }
  };
  const std::unique_ptr<PGnotify, Free> notification(PQnotifies(connection_.get()));
  if (notification == nullptr) return std::nullopt;
  return notification->extra;
}

}  // namespace valuescope::store
