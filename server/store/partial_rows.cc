#include "store/partial_rows.h"

#include <memory>
#include <string>

#include "store/resource_rows.h"
#include "store/step_blobs.h"

namespace valuescope::store {

void WriteResult(SqlTransaction& transaction, int64_t job, int64_t shard,
                 const ShardProgress& progress) {
  transaction.Execute(
      "INSERT INTO step_results (job, shard, cursor, partial, partial_blob, partial_size)"
      " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (job, shard) DO UPDATE"
      " SET cursor = excluded.cursor, partial = excluded.partial,"
      " partial_blob = excluded.partial_blob, partial_size = excluded.partial_size",
      job, shard, Bytes{progress.cursor}, Bytes{progress.partial}, progress.partial_blob.digest,
      progress.partial_blob.size);
}

void DropPartial(SqlTransaction& transaction, int64_t job, int64_t shard) {
  transaction.Execute(
      "INSERT INTO orphaned_blobs SELECT partial_blob, 0 FROM step_results"
      " WHERE job = $1 AND shard = $2 AND partial_blob <> ''"
      " ON CONFLICT (digest) DO UPDATE SET since = 0",
      job, shard);
}

void DropPartials(SqlTransaction& transaction, int64_t job) {
  transaction.Execute(
      "INSERT INTO orphaned_blobs SELECT partial_blob, 0 FROM step_results"
      " WHERE job = $1 AND partial_blob <> '' ON CONFLICT (digest) DO UPDATE SET since = 0",
      job);
}

void ClearShards(SqlTransaction& transaction, int64_t job, const std::vector<int64_t>& shards) {
  const std::vector<std::string> blobs = StepBlobsOf(transaction, job);
  int64_t shards_done = 0, work_done = 0;
  for (const int64_t shard : shards) {
    {
      const auto step = transaction.Query(
          "SELECT CASE state WHEN 2 THEN 1 ELSE 0 END, work_done FROM steps"
          " WHERE job = $1 AND shard = $2",
          job, shard);
      if (!step->Next()) continue;
      shards_done += step->Integer(0);
      work_done += step->Integer(1);
    }
    DropPartial(transaction, job, shard);
    transaction.Execute("DELETE FROM step_results WHERE job = $1 AND shard = $2", job, shard);
    transaction.Execute(
        "UPDATE steps SET state = CASE state WHEN 2 THEN 0 ELSE state END, work_done = 0"
        " WHERE job = $1 AND shard = $2",
        job, shard);
  }
  MarkIfUnnamed(transaction, blobs);
  // Nothing is to be put together before they are done.
  if (shards_done > 0) {
    transaction.Execute("UPDATE steps SET state = 3 WHERE job = $1 AND shard = $2 AND state = 0",
                        job, kMergeStep);
  }
  transaction.Execute("DELETE FROM job_observed WHERE job = $1", job);
  transaction.Execute(
      "UPDATE jobs SET shards_done = shards_done - $1, work_done = work_done - $2"
      " WHERE sequence = $3",
      shards_done, work_done, job);
}

}  // namespace valuescope::store
