// Requests to an S3 store over HTTP, signed by libcurl (AWS Signature Version 4), tried again where
// that can help: pauses double and are partly random, and end with the store's patience. Where the
// work of the thread is cancelled, what is under way is left within a second.
#ifndef VALUESCOPE_STORE_S3_CLIENT_H_
#define VALUESCOPE_STORE_S3_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "store/s3_answers.h"
#include "store/s3_credentials.h"
#include "store/s3_options.h"

namespace valuescope::store {

// What a request sends: read as often as it is sent.
struct S3Body {
  int64_t size = 0;
  std::string sha256;  // of all of it, hexadecimal
  std::function<absl::Status(int64_t offset, std::span<char> out)> read;

  static S3Body OfText(std::string text);
};

struct S3Request {
  absl::string_view operation;  // of S3Exchange
  const char* method = "GET";
  std::string key;                                         // empty: the bucket
  std::vector<std::pair<std::string, std::string>> query;  // names ascending
  std::vector<std::pair<std::string, std::string>> headers;
  S3Body body = S3Body::OfText("");
  int expected_status = 0;  // beside 2xx, such as 416
  // Where the content of a 2xx is added, at most `max_content` bytes of it; null: S3Answer::body.
  std::string* content = nullptr;
  int64_t max_content = int64_t{4} << 20;
};

// Thread-safe.
class S3Client {
 public:
  explicit S3Client(S3Options options);
  ~S3Client();
  S3Client(const S3Client&) = delete;
  S3Client& operator=(const S3Client&) = delete;

  // The attempts of one request: asked before each but the first.
  class Attempts {
   public:
    explicit Attempts(S3Client* client);
    // Waits, and returns true, where `status` may pass, there is time left and the thread's work
    // was not cancelled.
    bool Again(const absl::Status& status);
    bool first() const { return made_ == 0; }

   private:
    S3Client* const client_;
    const absl::Time end_;
    int made_ = 0;
  };

  // The answer, or the error of the last attempt, as StatusOf has it.
  absl::StatusOr<S3Answer> Send(const S3Request& request);

  // One attempt. What came of the content before an error stays added.
  absl::StatusOr<S3Answer> Try(const S3Request& request, const Attempts& attempts);

  // From now on an attempt is the last. Idempotent.
  void StopRetrying();

  const S3Options& options() const { return options_; }

 private:
  class Transfer;
  struct FreeHandle {
    void operator()(void* handle) const;
  };
  using Handle = std::unique_ptr<void, FreeHandle>;  // of libcurl, with its connections

  Handle TakeHandle();
  void GiveBack(Handle handle);
  std::string UrlOf(const S3Request& request) const;

  const S3Options options_;
  S3CredentialsSource credentials_;
  absl::Notification stopped_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Handle> idle_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_S3_CLIENT_H_
