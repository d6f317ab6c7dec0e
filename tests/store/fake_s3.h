// The S3 store of tests (fake_s3.py) as a process of this one's own.
#ifndef VALUESCOPE_TESTS_STORE_FAKE_S3_H_
#define VALUESCOPE_TESTS_STORE_FAKE_S3_H_

#include <sys/types.h>

#include <cstdio>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "store/s3_options.h"
#include "tests/store/temporary_folder.h"

namespace valuescope::store {

class FakeS3 {
 public:
  // `more`: of its options, such as "--cert=FILE".
  explicit FakeS3(std::vector<std::string> more = {});
  ~FakeS3();
  // One that tests share, one behind the other, as if it had just been started.
  static FakeS3& Anew();
  FakeS3(const FakeS3&) = delete;
  FakeS3& operator=(const FakeS3&) = delete;

  // Its answer to an order, as the head of fake_s3.py has them.
  nlohmann::json Tell(const nlohmann::json& order);
  int Count(const std::string& operation);  // of requests that were served
  std::vector<std::string> Keys() { return Tell({{"do", "keys"}}); }

  // Of a store that reaches it, with little patience, parts of 1,000 bytes, and its credentials in
  // a file; keys begin with "lab/values/".
  S3Options Options() const;
  std::string CredentialsFile() const { return folder_ / "credentials"; }
  static std::string CredentialsText(const std::string& access_key, const std::string& secret_key);

 private:
  const TemporaryFolder folder_;
  pid_t process_ = -1;
  FILE* orders_ = nullptr;
  FILE* answers_ = nullptr;
  int port_ = 0;
};

}  // namespace valuescope::store

#endif  // VALUESCOPE_TESTS_STORE_FAKE_S3_H_
