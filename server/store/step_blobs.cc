#include "store/step_blobs.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <set>

#include "base/status_macros.h"
#include "store/blob_store.h"
#include "store/resource_rows.h"

namespace valuescope::store {

absl::Status NameStepBlobs(SqlTransaction& transaction, int64_t job, int64_t shard,
                           const std::vector<std::string>& digests) {
  if (digests.empty()) return absl::OkStatus();
  for (const std::string& digest : digests) VS_RETURN_IF_ERROR(CheckDigest("blobs", digest));
  const std::set<std::string> named(digests.begin(), digests.end());
  std::set<std::string> before;
  {
    const auto rows = transaction.Query(
        "SELECT digest FROM step_blobs WHERE job = $1 AND shard = $2", job, shard);
    while (rows->Next()) before.insert(rows->Text(0));
  }
  std::vector<std::string> added, dropped;
  std::set_difference(named.begin(), named.end(), before.begin(), before.end(),
                      std::back_inserter(added));
  std::set_difference(before.begin(), before.end(), named.begin(), named.end(),
                      std::back_inserter(dropped));
  for (const std::string& digest : added) {
    transaction.Execute("INSERT INTO step_blobs VALUES ($1, $2, $3)", job, shard, digest);
  }
  for (const std::string& digest : dropped) {
    transaction.Execute("DELETE FROM step_blobs WHERE job = $1 AND shard = $2 AND digest = $3", job,
                        shard, digest);
  }
  MarkIfUnnamed(transaction, dropped);
  return absl::OkStatus();
}

std::vector<std::string> StepBlobsOf(SqlTransaction& transaction, int64_t job) {
  std::vector<std::string> digests;
  const auto rows = transaction.Query("SELECT digest FROM step_blobs WHERE job = $1", job);
  while (rows->Next()) digests.push_back(rows->Text(0));
  return digests;
}

}  // namespace valuescope::store
