// Where the partial result of a shard lies. A commit holds the database's writer, so it is to be
// short whatever the shard has come to: a small partial goes into the row, a larger one is a blob,
// durable before the commit begins, of which the row has digest and size. So the bytes of a commit
// are bounded (TurnRules::partial_in_row and the cursor), whatever the model's size and however
// many units are done.
//
// A blob of a partial begins with random bytes, so that nobody else ever writes the same: the
// commit that replaces it lets it go at once (jobs/blob_sweep.h). One whose commit never came is
// found as other blobs without a name are.
//
// Partials are read outside of any transaction, one at a time, and held against their digest. One
// that is not there any more, or damaged, costs the shard's work and not the job: the shard is
// done again from its start. So is one whose kind finds damaged what the partial holds or names
// (PartialDamaged). A storage that damages all it is given fails the job.
#ifndef VALUESCOPE_JOBS_STORED_PARTIAL_H_
#define VALUESCOPE_JOBS_STORED_PARTIAL_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::jobs {

// Moves the partial into a blob where it has more than `most_in_row` bytes.
absl::Status PutAside(store::BlobStore& blobs, int64_t most_in_row, store::ShardProgress& progress);

// A shard of the leased job as committed last, with its partial. ABORTED where the lease is lost;
// DATA_LOSS (IsPartialLost) where the partial is, and the shard is open again.
absl::StatusOr<store::ShardProgress> ReadShard(store::Store& store, store::BlobStore& blobs,
                                               const store::Lease& lease, int64_t shard);

bool IsPartialLost(const absl::Status& status);

// A blob that a partial names is not what was written, as an error of reading it says.
bool IsGone(const absl::Status& status);

// How a step ended: where by PartialDamaged of a shard that is known, that shard is open again, and
// IsPartialLost holds of what is returned; other statuses pass unchanged.
absl::Status RestartIfDamaged(store::Store& store, const store::Lease& lease, absl::Status ended);

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_STORED_PARTIAL_H_
