// Bytes apart from metadata: a blob is named by the SHA-256 of its content, written once and never
// changed. Which tenant may read a blob is decided by the resource that names it (store/store.h),
// never here, so equal bytes of two tenants are kept once and neither can learn of the other.
//
// Nothing of a blob is visible before all of it is durable.
#ifndef VALUESCOPE_STORE_BLOB_STORE_H_
#define VALUESCOPE_STORE_BLOB_STORE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace valuescope::store {

// What names a blob.
struct StoredBlob {
  std::string digest;  // SHA-256, 64 lower-case hexadecimal digits
  int64_t size = 0;    // bytes

  bool operator==(const StoredBlob&) const = default;
};

// OK if `digest` is 64 lower-case hexadecimal digits, else INVALID_ARGUMENT naming `field`. Every
// digest passes here before it becomes a path or a key.
absl::Status CheckDigest(absl::string_view field, absl::string_view digest);

// Writes one blob. Destroyed before Finish it leaves nothing behind. Not thread-safe.
class BlobWriter {
 public:
  virtual ~BlobWriter() = default;

  // Adds bytes at the end. UNAVAILABLE (reason STORAGE_FULL) where the storage is full. After an
  // error the writer is good only for destruction.
  virtual absl::Status Append(absl::string_view bytes) = 0;

  // Bytes appended so far.
  virtual int64_t size() const = 0;

  // Makes the blob durable and visible. With `expected_digest` not empty and different from the
  // content's: INVALID_ARGUMENT (reason CHECKSUM_MISMATCH), and nothing is stored. Call once.
  virtual absl::StatusOr<StoredBlob> Finish(absl::string_view expected_digest = "") = 0;
};

// Bytes that work puts aside while it runs, instead of keeping them in memory. Nobody else sees
// them, and they are gone with whoever holds this, even if that is killed. Not thread-safe.
class ScratchFile {
 public:
  virtual ~ScratchFile() = default;

  // UNAVAILABLE (reason STORAGE_FULL) where the storage is full.
  virtual absl::Status Write(int64_t offset, absl::string_view bytes) = 0;
  // Fills `out`. DATA_LOSS where so much was not written.
  virtual absl::Status Read(int64_t offset, std::span<char> out) const = 0;
};

// Thread-safe.
class BlobStore {
 public:
  virtual ~BlobStore() = default;

  // Makes the place that of the database with that identity (Store::Identity), where it is nobody's
  // yet. FAILED_PRECONDITION, reason BLOBS_OF_ANOTHER_STORE, where it is another's: each of the two
  // would remove what only the other one names.
  virtual absl::Status Claim(absl::string_view identity) = 0;

  virtual absl::StatusOr<std::unique_ptr<BlobWriter>> NewWriter() = 0;

  virtual absl::StatusOr<std::unique_ptr<ScratchFile>> NewScratchFile() = 0;

  // Bytes [offset, min(offset + length, size)); empty where offset is the size. Errors:
  // INVALID_ARGUMENT for a malformed digest, OUT_OF_RANGE for a negative length or an offset
  // outside 0 .. size, NOT_FOUND.
  virtual absl::StatusOr<std::string> Read(absl::string_view digest, int64_t offset,
                                           int64_t length) = 0;

  // Size in bytes, or NOT_FOUND.
  virtual absl::StatusOr<int64_t> Size(absl::string_view digest) = 0;

  // Digests of blobs that were last finished at least `age` ago, as the storage's clock tells,
  // ascending: the first `limit` of those behind `after` (empty: from the start), fewer only where
  // there are no more.
  virtual absl::StatusOr<std::vector<std::string>> List(absl::string_view after, int64_t limit,
                                                        absl::Duration age) = 0;

  // Removes a blob that was last finished at least `age` ago (a blob written again is young again).
  // OK where there is no such blob.
  virtual absl::Status Remove(absl::string_view digest, absl::Duration age) = 0;

  // Removes what writers that died left unfinished, once it is a day old.
  virtual absl::Status ClearUnfinished() = 0;

  // The process is about to end: calls that would wait to try again fail instead, from now on.
  virtual void StopRetrying() {}
};

// What stores answer alike: NOT_FOUND, reason BLOB_NOT_FOUND;
absl::Status BlobNotFound();
// OUT_OF_RANGE where `offset` is outside 0 .. `size` or `length` is negative;
absl::Status CheckRange(int64_t offset, int64_t length, int64_t size);
// INVALID_ARGUMENT, reason CHECKSUM_MISMATCH, where `expected` is neither empty nor `digest`.
absl::Status CheckExpected(absl::string_view expected, absl::string_view digest);

// What tells in a place whose it is, beside the blobs: the identity, and nothing else.
inline constexpr char kOwnerName[] = ".owner";
// BLOBS_OF_ANOTHER_STORE where `owner`, as it was read there, is not `identity`.
absl::Status CheckOwner(absl::string_view owner, absl::string_view identity);

// Append and Finish at once.
absl::StatusOr<StoredBlob> WriteBlob(BlobStore& blobs, absl::string_view bytes);

// All bytes of a blob whose size is at most `max_size`; above it RESOURCE_EXHAUSTED.
absl::StatusOr<std::string> ReadBlob(BlobStore& blobs, absl::string_view digest, int64_t max_size);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_BLOB_STORE_H_
