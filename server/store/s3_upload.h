// Sends a blob to an S3 store: in one request, or in parts where it is large. Whoever receives it
// checks each request's bytes against the SHA-256 that is signed with it.
#ifndef VALUESCOPE_STORE_S3_UPLOAD_H_
#define VALUESCOPE_STORE_S3_UPLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "store/blob_store.h"
#include "store/s3_client.h"

namespace valuescope::store {

// What S3 allows of one upload.
inline constexpr int64_t kMaxUploadParts = 10'000;

// A whole blob in a scratch file.
struct StagedBlob {
  const ScratchFile* file = nullptr;
  int64_t size = 0;
  std::string digest;                     // hexadecimal, as those of the parts
  std::vector<std::string> part_digests;  // of every S3Options::part_bytes; one or none: small
};

// Under `key` all of it is visible, or nothing: after an error what was sent of it is given up.
absl::Status Upload(S3Client& client, const std::string& key, const StagedBlob& blob);

// Gives up an upload that was begun. OK where there is none.
absl::Status AbortUpload(S3Client& client, const std::string& key, const std::string& id);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_S3_UPLOAD_H_
