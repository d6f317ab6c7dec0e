#include "store/usage_rows.h"

#include <algorithm>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::store {
namespace {

constexpr absl::Duration kHour = absl::Hours(1);
constexpr absl::Duration kDefaultQuery = absl::Hours(24);

absl::Time HourOf(absl::Time time) {
  return absl::UnixEpoch() + absl::Floor(time - absl::UnixEpoch(), kHour);
}

// Rows are locked in the order of their tenants by all who add to several.
void AddCounts(SqlTransaction& transaction, absl::string_view tenant, const UsageCounts& counts) {
  transaction.Execute(
      "INSERT INTO usage (tenant, hour, calls, prompt_tokens, generated_tokens)"
      " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant, hour) DO UPDATE SET"
      " calls = usage.calls + excluded.calls,"
      " prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,"
      " generated_tokens = usage.generated_tokens + excluded.generated_tokens",
      tenant, HourOf(transaction.now()), counts.calls, counts.prompt_tokens,
      counts.generated_tokens);
}

// Who counts back from now does so before the query comes, and by another clock.
constexpr absl::Duration kOtherClock = absl::Minutes(1);

// The begins of the first and the last hour that a query is about.
struct Hours {
  absl::Time first, last;
};

absl::StatusOr<Hours> HoursOf(const UsageQuery& query, absl::Time now) {
  const absl::Time end = query.end.value_or(now);
  const absl::Time start = query.start.value_or(end - kDefaultQuery);
  if (end <= start && !query.end) return InvalidField("start_time", "must be in the past");
  if (end <= start) return InvalidField("end_time", "must be after start_time");
  const absl::Duration most = query.by_hour ? kLongestUsageQueryByHour : kLongestUsageQuery;
  if (end - start > most + (query.end ? absl::ZeroDuration() : kOtherClock)) {
    return InvalidField(query.end ? "end_time" : "start_time",
                        absl::StrCat("must be at most ", most / absl::Hours(24),
                                     query.end ? " days after start_time" : " days ago",
                                     query.by_hour ? " where each hour is told by_hour" : ""),
                        "OUT_OF_RANGE");
  }
  return Hours{.first = HourOf(start), .last = HourOf(end)};
}

}  // namespace

absl::Status AddUsage(SqlTransaction& transaction, const UsageBatch& batch) {
  // Waits for the same batch where that is still on its way, and then finds it there.
  const auto row = transaction.Query(
      "INSERT INTO usage_writers VALUES ($1, $2, $3) ON CONFLICT (writer) DO UPDATE SET"
      " batch = excluded.batch, written_at = excluded.written_at"
      " WHERE usage_writers.batch < excluded.batch RETURNING batch",
      batch.writer, batch.number, transaction.now());
  if (!row->Next()) return absl::OkStatus();
  for (const auto& [tenant, counts] : batch.usage) AddCounts(transaction, tenant, counts);
  return absl::OkStatus();
}

void AddJobTime(SqlTransaction& transaction, absl::string_view tenant, absl::Duration worked) {
  const auto insertion = [](absl::string_view hour) {
    return absl::StrCat("INSERT INTO usage (tenant, job_microseconds, hour) VALUES ($1, $2, ", hour,
                        ") ON CONFLICT (tenant, hour) DO UPDATE SET"
                        " job_microseconds = usage.job_microseconds + excluded.job_microseconds");
  };
  const int64_t time = absl::ToInt64Microseconds(worked);
  // A worker commits often, and would wait for the time each time.
  const absl::string_view now = transaction.NowInSql();
  if (now.empty()) {
    transaction.Execute(insertion("$3"), tenant, time, HourOf(transaction.now()));
    return;
  }
  const int64_t hour = absl::ToInt64Microseconds(kHour);
  transaction.Execute(insertion(absl::StrCat(now, " / ", hour, " * ", hour)), tenant, time);
}

absl::StatusOr<std::vector<TenantUsage>> QueryUsage(SqlTransaction& transaction,
                                                    const UsageQuery& query) {
  VS_ASSIGN_OR_RETURN(const Hours hours, HoursOf(query, transaction.now()));
  const auto rows = transaction.Query(
      absl::StrCat("SELECT tenant, min(hour), CAST(sum(calls) AS BIGINT),"
                   " CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(generated_tokens) AS BIGINT),"
                   " CAST(sum(job_microseconds) AS BIGINT) FROM usage"
                   " WHERE hour >= $1 AND hour <= $2 AND ($3 = '' OR tenant = $3) GROUP BY tenant",
                   query.by_hour ? ", hour" : ""),
      hours.first, hours.last, query.tenant);
  std::vector<TenantUsage> usage;
  while (rows->Next()) {
    TenantUsage& one = usage.emplace_back();
    one.tenant = rows->Text(0);
    one.start = query.by_hour ? absl::FromUnixMicros(rows->Integer(1)) : hours.first;
    one.end = (query.by_hour ? one.start : hours.last) + kHour;
    one.counts = {.calls = rows->Integer(2),
                  .prompt_tokens = rows->Integer(3),
                  .generated_tokens = rows->Integer(4)};
    one.job_time = absl::Microseconds(rows->Integer(5));
  }
  // Here, since databases order text by their locale.
  std::sort(usage.begin(), usage.end(), [](const TenantUsage& a, const TenantUsage& b) {
    return std::tie(a.start, a.tenant) < std::tie(b.start, b.tenant);
  });
  return usage;
}

int64_t ExpireUsage(SqlTransaction& transaction, absl::Time time, int64_t most) {
  // Whoever wrote last then sends nothing of that time again.
  transaction.Execute("DELETE FROM usage_writers WHERE written_at <= $1", time);
  int64_t expired = 0;
  const auto rows = transaction.Query(
      absl::StrCat("DELETE FROM usage WHERE (tenant, hour) IN"
                   " (SELECT u.tenant, u.hour FROM usage u WHERE u.hour <= $1"
                   "   ORDER BY u.hour LIMIT $2",
                   transaction.Locking(" FOR UPDATE OF u SKIP LOCKED"), ") RETURNING 1"),
      time - kHour, most);
  while (rows->Next()) ++expired;
  return expired;
}

}  // namespace valuescope::store
