// Blobs as files of a directory: ROOT/ab/abcdef..., the first two digits of the digest
// fanning out. A blob is written to ROOT/incoming, synced, renamed to its name, and the directory
// synced, so that a crash at any point leaves either the whole blob or a file in ROOT/incoming that
// the next opening removes.
#ifndef VALUESCOPE_STORE_DIRECTORY_BLOB_STORE_H_
#define VALUESCOPE_STORE_DIRECTORY_BLOB_STORE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "store/blob_store.h"
#include "store/file_lock.h"

namespace valuescope::store {

// Opens or makes the directory `root`. Used alone, a second process gets FAILED_PRECONDITION
// (reason STORE_IN_USE). Used together, by servers that share a store, it may lie on a file system
// that they share, whose locks (flock) must work among them; what a process left unfinished there
// is removed by an opening that comes a day later. UNAVAILABLE where the directory cannot be made
// or written. Writers must not outlive the store.
absl::StatusOr<std::unique_ptr<BlobStore>> OpenDirectoryBlobStore(const std::string& root,
                                                                  LockMode mode = LockMode::kAlone);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_DIRECTORY_BLOB_STORE_H_
