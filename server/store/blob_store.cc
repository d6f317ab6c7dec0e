#include "store/blob_store.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::store {

absl::Status CheckDigest(absl::string_view field, absl::string_view digest) {
  const bool valid = digest.size() == 64 && std::all_of(digest.begin(), digest.end(), [](char c) {
                       return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                     });
  if (valid) return absl::OkStatus();
  return InvalidField(field, "must be a SHA-256: 64 lower-case hexadecimal digits");
}

absl::Status BlobNotFound() {
  return ErrorWithReason(absl::StatusCode::kNotFound, "BLOB_NOT_FOUND",
                         "the blob store has no such bytes");
}

absl::Status CheckRange(int64_t offset, int64_t length, int64_t size) {
  if (offset >= 0 && offset <= size && length >= 0) return absl::OkStatus();
  return absl::OutOfRangeError(
      absl::StrCat("offset ", offset, " and length ", length, " are outside the ", size, " bytes"));
}

absl::Status CheckExpected(absl::string_view expected, absl::string_view digest) {
  if (expected.empty() || expected == digest) return absl::OkStatus();
  return InvalidField("sha256", absl::StrCat("the bytes received have SHA-256 ", digest),
                      "CHECKSUM_MISMATCH");
}

absl::Status CheckOwner(absl::string_view owner, absl::string_view identity) {
  if (owner == identity) return absl::OkStatus();
  constexpr size_t kLongestTold = 64;
  return ErrorWithReason(
      absl::StatusCode::kFailedPrecondition, "BLOBS_OF_ANOTHER_STORE",
      absl::StrCat("the bytes there belong to the database ",
                   absl::CHexEscape(owner.substr(0, kLongestTold)), ", and this one is ", identity,
                   "; two databases in one place would remove each other's bytes: use another "
                   "directory or prefix, or, where the other database is gone for good, remove ",
                   kOwnerName, " there and what is there is this one's"));
}

absl::StatusOr<StoredBlob> WriteBlob(BlobStore& blobs, absl::string_view bytes) {
  VS_ASSIGN_OR_RETURN(std::unique_ptr<BlobWriter> writer, blobs.NewWriter());
  VS_RETURN_IF_ERROR(writer->Append(bytes));
  return writer->Finish();
}

absl::StatusOr<std::string> ReadBlob(BlobStore& blobs, absl::string_view digest, int64_t max_size) {
  VS_ASSIGN_OR_RETURN(const int64_t size, blobs.Size(digest));
  if (size > max_size) {
    return NeverFits("BLOB_TOO_LARGE", absl::StrCat("the stored bytes are ", size, ", at most ",
                                                    max_size, " are read at once"));
  }
  return blobs.Read(digest, /*offset=*/0, size);
}

}  // namespace valuescope::store
