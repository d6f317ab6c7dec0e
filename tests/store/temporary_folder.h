// A folder of its own for a test, removed with it.
#ifndef VALUESCOPE_TESTS_STORE_TEMPORARY_FOLDER_H_
#define VALUESCOPE_TESTS_STORE_TEMPORARY_FOLDER_H_

#include <filesystem>
#include <string>

#include "absl/strings/string_view.h"
#include "base/id.h"

namespace valuescope {

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(std::filesystem::temp_directory_path() / ("valuescope-" + NewUuid())) {
    std::filesystem::create_directory(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string operator/(absl::string_view name) const { return path_ / std::string(name); }

 private:
  const std::filesystem::path path_;
};

}  // namespace valuescope

#endif  // VALUESCOPE_TESTS_STORE_TEMPORARY_FOLDER_H_
