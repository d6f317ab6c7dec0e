// What the steps of a job have come to: cursors and partial results. A small partial stands in the
// row; a large one is a blob that nothing else names and nobody else can have written, so it may go
// as soon as its row does. Functions work inside the caller's transaction and throw what the
// database throws.
#ifndef VALUESCOPE_STORE_PARTIAL_ROWS_H_
#define VALUESCOPE_STORE_PARTIAL_ROWS_H_

#include <cstdint>
#include <vector>

#include "store/sql_database.h"
#include "store/store.h"

namespace valuescope::store {

// Takes the place of what the step had come to. Its blob, if it has one, was dropped.
void WriteResult(SqlTransaction& transaction, int64_t job, int64_t shard,
                 const ShardProgress& progress);

// Blobs that lose their name with this transaction: of one shard, which must have one, and of all
// shards of a job.
void DropPartial(SqlTransaction& transaction, int64_t job, int64_t shard);
void DropPartials(SqlTransaction& transaction, int64_t job);

// The shards are to be done again from their start, and are open unless they are leased; what is
// put together of them waits. Blobs that only their partials named lose their name.
void ClearShards(SqlTransaction& transaction, int64_t job, const std::vector<int64_t>& shards);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_PARTIAL_ROWS_H_
