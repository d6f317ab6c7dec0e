// What an S3 store says: documents in XML, headers, and codes of errors. All of it comes from
// another machine, is checked, and is passed on to nobody as it came.
#ifndef VALUESCOPE_STORE_S3_ANSWERS_H_
#define VALUESCOPE_STORE_S3_ANSWERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace valuescope::store {

struct S3Answer {
  int status = 0;                              // of HTTP
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // of an error, or where the request keeps none

  // Empty where there is none.
  absl::string_view Header(absl::string_view name) const;
  // The store's clock. UNAVAILABLE where it does not tell the time.
  absl::StatusOr<absl::Time> Date() const;
};

// What else is asked of whoever tries again: nothing but time.
bool IsPassing(const absl::Status& status);

// The store cannot be reached or does not answer as S3 does: UNAVAILABLE, reason
// STORAGE_UNREACHABLE, and IsPassing.
absl::Status Unreachable(absl::string_view why);

// OK for 2xx. Else NOT_FOUND (reason BLOB_NOT_FOUND) for a missing key; UNAVAILABLE with reason
// STORAGE_FULL, STORAGE_REFUSED (the message says what to check) or, for what may pass,
// STORAGE_UNREACHABLE.
absl::Status StatusOf(const S3Answer& answer);

// The first of an answer's times ("Sun, 06 Nov 1994 08:49:37 GMT"), or UNAVAILABLE.
absl::StatusOr<absl::Time> TimeOfHeader(const S3Answer& answer, absl::string_view name);

// "bytes 0-99/1234" or "bytes */1234": the size of the whole, 1234.
absl::StatusOr<int64_t> WholeSizeOf(const S3Answer& answer);

struct S3Object {
  std::string key;
  absl::Time last_modified;
};

struct S3Listing {
  std::vector<S3Object> objects;  // keys ascending
  std::string next;               // empty on the last page
};

// Of ListObjectsV2 behind `after`. UNAVAILABLE where keys do not ascend from there.
absl::StatusOr<S3Listing> ParseListing(absl::string_view xml, absl::string_view after);

struct S3Upload {
  std::string key, id;
  absl::Time initiated;
};

// Of ListMultipartUploads: its first page.
absl::StatusOr<std::vector<S3Upload>> ParseUploads(absl::string_view xml);

// Of CreateMultipartUpload: the upload's id.
absl::StatusOr<std::string> ParseUploadId(absl::string_view xml);

// Of CompleteMultipartUpload, which can fail behind a status of 200.
absl::Status CheckCompleted(const S3Answer& answer);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_S3_ANSWERS_H_
