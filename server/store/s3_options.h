// Where an S3 store is, how long it is waited for, and who hears of what passes.
#ifndef VALUESCOPE_STORE_S3_OPTIONS_H_
#define VALUESCOPE_STORE_S3_OPTIONS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace valuescope::store {

// One request and its answer, or what came of it.
struct S3Exchange {
  absl::string_view operation;  // "get", "put", ...: one of a fixed set, never freed
  int http_status = 0;          // 0: no whole answer came
  bool again = false;           // an attempt before it failed
  int64_t sent = 0;             // bytes of bodies
  int64_t received = 0;
  absl::Duration duration;
  absl::Status status;  // what it means; NOT_FOUND is an answer like others
};

struct S3Options {
  std::string bucket;
  std::string prefix;    // of keys, without slashes at its ends; empty: none
  std::string endpoint;  // "https://HOST[:PORT]" or "http://..."; empty: AWS's of the region
  std::string region = "us-east-1";
  bool bucket_in_host = false;   // https://BUCKET.HOST/KEY, else https://HOST/BUCKET/KEY
  std::string credentials_file;  // see S3CredentialsSource
  std::string ca_file;           // of certificates to trust instead of the system's; may be empty
  std::string scratch_folder;    // where blobs are put together, and scratch files are
  int64_t part_bytes = int64_t{16} << 20;  // larger blobs are sent in parts of this size

  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration longest_stall = absl::Seconds(20);      // without a byte
  absl::Duration patience = absl::Seconds(60);           // after which nothing is tried again
  absl::Duration first_pause = absl::Milliseconds(100);  // before the second attempt; doubles
  // Called from any thread; must not block.
  std::function<void(const S3Exchange&)> on_exchange;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_S3_OPTIONS_H_
