#include "store/job_list.h"

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "store/job_rows.h"
#include "store/page_token.h"

namespace valuescope::store {
namespace {

// A statement with its parameters, as it is put together. What is bound outlives it.
class Statement {
 public:
  // "$1", "$2", ...
  std::string Parameter(SqlValue value) {
    values_.push_back(value);
    return absl::StrCat("$", values_.size());
  }
  const std::vector<SqlValue>& values() const { return values_; }

 private:
  std::vector<SqlValue> values_;
};

std::string MicrosOrNothing(const std::optional<absl::Time>& time) {
  return time ? absl::StrCat(absl::ToUnixMicros(*time)) : "";
}

// What a page token belongs to.
std::vector<std::string> ScopeOf(absl::string_view tenant, const JobFilter& filter) {
  const std::set<JobState> states(filter.states.begin(), filter.states.end());
  return {std::string(tenant),
          "jobs",
          absl::StrJoin(states, ",",
                        [](std::string* out, JobState state) {
                          absl::StrAppend(out, static_cast<int>(state));
                        }),
          filter.kind,
          MicrosOrNothing(filter.created_after),
          MicrosOrNothing(filter.created_before),
          filter.display_name_prefix,
          filter.model,
          filter.parent};
}

// Sequence numbers of the first jobs that the filter lets through, of one state at most: an index
// has them in order, and whatever else is asked of them but for combinations of filters.
std::string SequencesOf(const JobFilter& filter, std::optional<JobState> state,
                        absl::string_view tenant, const PageBounds& bounds, Statement& statement) {
  const bool by_model = !filter.model.empty();
  const char* const sequence = by_model ? "m.job" : "j.sequence";
  std::string sql = absl::StrCat(
      "SELECT ", sequence, " AS sequence FROM ",
      by_model ? "job_models m JOIN jobs j ON j.sequence = m.job WHERE m.tenant = "
               : "jobs j WHERE j.tenant = ",
      statement.Parameter(tenant), " AND ", sequence, " < ", statement.Parameter(bounds.before));
  const auto add = [&](absl::string_view condition, SqlValue value) {
    absl::StrAppend(&sql, " AND ", condition, " ", statement.Parameter(value));
  };
  if (by_model) add("m.model =", absl::string_view(filter.model));
  if (state) add("j.state =", static_cast<int64_t>(*state));
  if (!filter.kind.empty()) add("j.kind =", absl::string_view(filter.kind));
  if (filter.created_after) add("j.created_at >=", absl::ToUnixMicros(*filter.created_after));
  if (filter.created_before) add("j.created_at <", absl::ToUnixMicros(*filter.created_before));
  if (!filter.display_name_prefix.empty()) {
    const std::string prefix = statement.Parameter(absl::string_view(filter.display_name_prefix));
    absl::StrAppend(&sql, " AND substr(j.display_name, 1, length(CAST(", prefix,
                    " AS TEXT))) = ", prefix);
  }
  if (filter.parent.empty()) {
    absl::StrAppend(&sql, " AND NOT EXISTS (SELECT 1 FROM job_children c WHERE c.job = ", sequence,
                    ")");
  } else {
    absl::StrAppend(&sql, " AND ", sequence, " IN (SELECT c.job FROM job_children c JOIN jobs p",
                    " ON p.sequence = c.parent WHERE p.id = ",
                    statement.Parameter(absl::string_view(filter.parent)), ")");
  }
  return absl::StrCat(sql, " ORDER BY ", sequence, " DESC LIMIT ",
                      statement.Parameter(static_cast<int64_t>(bounds.size) + 1));
}

}  // namespace

absl::StatusOr<JobPage> ListJobs(SqlTransaction& transaction, absl::string_view tenant,
                                 const JobFilter& filter, const Page& page) {
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name_prefix", filter.display_name_prefix));
  const std::vector<std::string> scope = ScopeOf(tenant, filter);
  VS_ASSIGN_OR_RETURN(const PageBounds bounds, ParsePage(page, scope));
  Statement statement;
  std::vector<std::string> sources;
  for (const JobState state : std::set<JobState>(filter.states.begin(), filter.states.end())) {
    sources.push_back(absl::StrCat("SELECT sequence FROM (",
                                   SequencesOf(filter, state, tenant, bounds, statement),
                                   ") AS of_state_", static_cast<int>(state)));
  }
  if (sources.empty()) {
    sources.push_back(SequencesOf(filter, std::nullopt, tenant, bounds, statement));
  }
  const auto rows = transaction.QueryWith(
      absl::StrCat("SELECT ", kJobColumns, " FROM ", kJobsWithPayloads, " WHERE sequence IN (",
                   absl::StrJoin(sources, " UNION ALL "), ") ORDER BY sequence DESC LIMIT ",
                   statement.Parameter(static_cast<int64_t>(bounds.size) + 1)),
      statement.values());
  JobPage result;
  int64_t last = 0;
  while (rows->Next()) {
    if (result.jobs.size() == static_cast<size_t>(bounds.size)) {
      result.next_page_token = MakePageToken(last, scope);
      break;
    }
    last = rows->Integer(0);
    result.jobs.push_back(ReadJob(*rows));
  }
  return result;
}

}  // namespace valuescope::store
