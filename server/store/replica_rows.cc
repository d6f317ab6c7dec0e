#include "store/replica_rows.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace valuescope::store {
namespace {

std::string JsonOf(const std::vector<std::string>& texts) {
  return nlohmann::json(texts).dump(-1, ' ', /*ensure_ascii=*/true,
                                    nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<std::vector<std::string>> TextsOf(const std::string& json) {
  const auto parsed = nlohmann::json::parse(json, nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> texts;
  if (parsed.is_array()) {
    for (const nlohmann::json& text : parsed) {
      if (text.is_string()) texts.push_back(text.get<std::string>());
    }
    if (texts.size() == parsed.size()) return texts;
  }
  return ErrorWithReason(absl::StatusCode::kDataLoss, "STORE_DAMAGED",
                         "the store's record of a server is damaged");
}

// What is older was not heard of for too long. Not before the first of all times: a store without
// others forgets nobody.
absl::Time Oldest(const SqlTransaction& transaction, absl::Duration silence) {
  return std::max(absl::UnixEpoch(), transaction.now() - silence);
}

}  // namespace

void PutReplica(SqlTransaction& transaction, const Replica& replica, absl::Duration silence) {
  const std::string has = JsonOf(replica.has);
  const bool known =
      transaction.Integer("SELECT 1 FROM replicas WHERE id = $1 AND has = $2", replica.id, has)
          .has_value();
  // Jobs that wait for what came may go on there.
  if (!known) transaction.Announce({.job_id = "", .for_workers = false});
  transaction.Execute("DELETE FROM replicas WHERE seen_at < $1", Oldest(transaction, silence));
  transaction.Execute(
      "INSERT INTO replicas VALUES ($1, $2, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET"
      " seen_at = excluded.seen_at, kinds = excluded.kinds, has = excluded.has,"
      " record = excluded.record",
      replica.id, transaction.now(), JsonOf(replica.kinds), has, Bytes{replica.record});
}

void RemoveReplica(SqlTransaction& transaction, absl::string_view id) {
  transaction.Execute("DELETE FROM replicas WHERE id = $1", id);
  transaction.Announce({.job_id = "", .for_workers = false});
}

void RemoveReplicas(SqlTransaction& transaction) { transaction.Execute("DELETE FROM replicas"); }

absl::StatusOr<std::vector<Replica>> ListReplicas(SqlTransaction& transaction,
                                                  absl::Duration silence) {
  const auto rows = transaction.Query(
      "SELECT id, started_at, seen_at, kinds, has, record FROM replicas WHERE seen_at >= $1"
      " ORDER BY id",
      Oldest(transaction, silence));
  std::vector<Replica> replicas;
  while (rows->Next()) {
    Replica& replica = replicas.emplace_back();
    replica.id = rows->Text(0);
    replica.started_at = absl::FromUnixMicros(rows->Integer(1));
    replica.seen_at = absl::FromUnixMicros(rows->Integer(2));
    VS_ASSIGN_OR_RETURN(replica.kinds, TextsOf(rows->Text(3)));
    VS_ASSIGN_OR_RETURN(replica.has, TextsOf(rows->Text(4)));
    replica.record = rows->Text(5);
  }
  return replicas;
}

}  // namespace valuescope::store
