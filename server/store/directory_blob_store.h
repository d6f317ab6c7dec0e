// Blobs as files of a local directory: ROOT/ab/abcdef..., the first two digits of the digest
// fanning out. A blob is written to ROOT/incoming, synced, renamed to its name, and the directory
// synced, so that a crash at any point leaves either the whole blob or a file in ROOT/incoming that
// the next opening removes.
#ifndef VALUESCOPE_STORE_DIRECTORY_BLOB_STORE_H_
#define VALUESCOPE_STORE_DIRECTORY_BLOB_STORE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "store/blob_store.h"

namespace valuescope::store {

// Opens or makes the directory `root`. One process at a time: a second one gets FAILED_PRECONDITION
// (reason STORE_IN_USE). UNAVAILABLE where the directory cannot be made or written. Writers must
// not outlive the store.
absl::StatusOr<std::unique_ptr<BlobStore>> OpenDirectoryBlobStore(const std::string& root);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_DIRECTORY_BLOB_STORE_H_
