#include "store/ready_queue.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "store/tenant_rows.h"

namespace valuescope::store {
namespace {

bool RunsAllItMay(const Share& share, const TenantPolicy& policy) {
  return policy.max_running > 0 && share.running >= policy.max_running;
}

std::string JsonOf(const std::vector<WorkType>& can_run) {
  nlohmann::json types = nlohmann::json::array();
  for (const WorkType& type : can_run) types.push_back({type.kind, type.needs});
  return types.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
}

}  // namespace

int64_t LineOf(SqlTransaction& transaction, absl::string_view tenant, absl::string_view kind,
               absl::string_view needs) {
  transaction.Execute(
      "INSERT INTO lines (tenant, kind, needs) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", tenant,
      kind, needs);
  return transaction
      .Integer("SELECT line FROM lines WHERE tenant = $1 AND kind = $2 AND needs = $3", tenant,
               kind, needs)
      .value();
}

std::vector<WorkType> ListWork(SqlTransaction& transaction) {
  std::vector<WorkType> types;
  const auto rows = transaction.Query(
      "SELECT DISTINCT kind, needs FROM lines l WHERE EXISTS"
      " (SELECT 1 FROM jobs j WHERE j.line = l.line AND j.state IN (1, 2))");
  while (rows->Next()) {
    types.push_back({.kind = rows->Text(0), .needs = rows->Text(1)});
  }
  return types;
}

std::vector<ReadyLine> LinesInTurn(SqlTransaction& transaction,
                                   const std::vector<WorkType>& can_run,
                                   const TenantPolicies& tenants, const Lease* instead_of) {
  // Of the job at a line's head.
  const auto head = [&](absl::string_view column) {
    const absl::string_view unless_running =
        instead_of == nullptr
            ? ""
            : " AND NOT EXISTS (SELECT 1 FROM steps r WHERE r.job = j.sequence AND r.state = 1)";
    return absl::StrCat("(SELECT j.", column,
                        " FROM jobs j WHERE j.line = l.line AND j.ready_at <= $2", unless_running,
                        " ORDER BY j.priority DESC, j.sequence LIMIT 1)");
  };
  const auto rows = transaction.Query(
      absl::StrCat("SELECT l.line, t.tenant, ", head("priority"), ", ", head("sequence"),
                   ", (SELECT max(served_from) FROM tenants), " SHARE_COLUMNS
                   " FROM lines l JOIN tenants t ON t.tenant = l.tenant"
                   " WHERE (l.kind, l.needs) IN (SELECT value ->> 0, value ->> 1 FROM ",
                   transaction.ElementsOfFirst(), ")"),
      JsonOf(can_run), transaction.now());
  std::vector<ReadyLine> lines;
  while (rows->Next()) {
    if (rows->IsNull(3)) continue;
    std::string tenant = rows->Text(1);
    const TenantPolicy& policy = tenants.Of(tenant);
    Share share = ReadShare(*rows, /*first_column=*/5, policy.weight);
    if (instead_of != nullptr && instead_of->tenant == tenant) --share.running;
    if (RunsAllItMay(share, policy)) continue;
    const absl::Duration served = absl::Microseconds(rows->Integer(4));
    lines.push_back({.line = rows->Integer(0),
                     .tenant = std::move(tenant),
                     .priority = rows->Integer(2),
                     .job = rows->Integer(3),
                     .start = StartOf(share, served),
                     .turn = TurnOf(share, served)});
  }
  const auto order = [](const ReadyLine& line) {
    return std::tuple(line.turn, -line.priority, line.job);
  };
  std::sort(lines.begin(), lines.end(),
            [&](const ReadyLine& a, const ReadyLine& b) { return order(a) < order(b); });
  return lines;
}

std::vector<int64_t> ReadyJobsBehind(SqlTransaction& transaction, const ReadyLine& line) {
  constexpr int64_t kMostTried = 16;
  const auto rows = transaction.Query(
      "SELECT sequence FROM jobs WHERE line = $1 AND ready_at <= $2 AND sequence <> $3"
      " ORDER BY priority DESC, sequence LIMIT $4",
      line.line, transaction.now(), line.job, kMostTried);
  std::vector<int64_t> jobs;
  while (rows->Next()) jobs.push_back(rows->Integer(0));
  return jobs;
}

void UpdateReadiness(SqlTransaction& transaction, int64_t job) {
  transaction.Execute("UPDATE jobs SET ready_at = " READY_AT_OF_FIRST " WHERE sequence = $1", job);
}

bool OthersWait(SqlTransaction& transaction, const Lease& lease,
                const std::vector<WorkType>& can_run, const TenantPolicies& tenants) {
  const auto row =
      transaction.Query("SELECT " SHARE_COLUMNS
                        ", j.priority FROM jobs j JOIN tenants t ON t.tenant = j.tenant"
                        " WHERE j.id = $1",
                        lease.job_id);
  if (!row->Next()) return false;
  const TenantPolicy& policy = tenants.Of(lease.tenant);
  Share own = ReadShare(*row, /*first_column=*/0, policy.weight);
  own.virtual_time += VirtualTimeOf(lease.worked, policy.weight);
  --own.running;
  const int64_t priority = row->Integer(3);
  const absl::Duration turn = TurnOf(own, ServedFrom(transaction)).time;
  const std::vector<ReadyLine> others = LinesInTurn(transaction, can_run, tenants, &lease);
  return std::any_of(others.begin(), others.end(), [&](const ReadyLine& other) {
    return other.tenant == lease.tenant ? other.priority > priority : other.turn.time < turn;
  });
}

}  // namespace valuescope::store
