// Whose requests to an S3 store are: keys of the environment, or of a file that is read again when
// it changes, so that keys can be renewed while the server runs. Keys are never logged and stand in
// no error.
#ifndef VALUESCOPE_STORE_S3_CREDENTIALS_H_
#define VALUESCOPE_STORE_S3_CREDENTIALS_H_

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/file_version.h"

namespace valuescope::store {

struct S3Credentials {
  std::string access_key;
  std::string secret_key;
  std::string session_token;  // empty: none
};

// Thread-safe.
class S3CredentialsSource {
 public:
  // `file` has the form of AWS's shared credentials file, of which the section [default] is read:
  // aws_access_key_id, aws_secret_access_key and maybe aws_session_token. Where it is empty the
  // environment has them, in capitals.
  explicit S3CredentialsSource(std::string file) : file_(std::move(file)) {}

  // UNAVAILABLE (reason STORAGE_REFUSED) where there are none; what is being written keeps what was
  // read before.
  absl::StatusOr<S3Credentials> Get();

 private:
  absl::StatusOr<S3Credentials> FromFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string file_;
  absl::Mutex mutex_;
  FileVersion version_ ABSL_GUARDED_BY(mutex_);
  S3Credentials read_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_S3_CREDENTIALS_H_
