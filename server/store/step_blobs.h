// Blobs that partial results name: what shards wrote aside while they ran. They stay as long as the
// partial does. Functions work inside the caller's transaction and throw what the database throws.
#ifndef VALUESCOPE_STORE_STEP_BLOBS_H_
#define VALUESCOPE_STORE_STEP_BLOBS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "store/sql_database.h"

namespace valuescope::store {

// The step's partial, which was written, names these now and no others; those that lost their last
// name are marked. A step that names none never did. INVALID_ARGUMENT naming "blobs".
absl::Status NameStepBlobs(SqlTransaction& transaction, int64_t job, int64_t shard,
                           const std::vector<std::string>& digests);

// Of all steps of a job: what loses its name with the rows of some is to be marked.
std::vector<std::string> StepBlobsOf(SqlTransaction& transaction, int64_t job);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_STEP_BLOBS_H_
