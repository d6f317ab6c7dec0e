// A file that is read again while the server runs, once it has changed and rests, so that what it
// says changes without a restart. A mistake leaves what was read before in force.
#ifndef VALUESCOPE_BASE_REREAD_FILE_H_
#define VALUESCOPE_BASE_REREAD_FILE_H_

#include <cstddef>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/file_version.h"
#include "base/status_macros.h"

namespace valuescope {

// Thread-safe. T is what the file says.
template <typename T>
class RereadFile {
 public:
  using Parse = std::function<absl::StatusOr<T>(absl::string_view text)>;

  // Files of more than `longest` bytes are refused unread.
  RereadFile(std::string path, size_t longest, Parse parse)
      : path_(std::move(path)), longest_(longest), parse_(std::move(parse)) {}

  // Reads it. INVALID_ARGUMENT where it cannot be read or is wrong, and what was read before stays.
  absl::Status Read() {
    const FileVersion version = VersionOf(path_);
    std::string text(longest_ + 1, '\0');
    std::ifstream file(path_, std::ios::binary);
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(file.gcount()));
    {
      absl::MutexLock lock(&mutex_);
      seen_ = read_ = version;
    }
    if (!file.is_open() || file.bad()) return absl::InvalidArgumentError("cannot be read");
    if (text.size() > longest_) {
      return absl::InvalidArgumentError(absl::StrCat("has more than ", longest_, " bytes"));
    }
    VS_ASSIGN_OR_RETURN(T value, parse_(text));
    absl::MutexLock lock(&mutex_);
    value_ = std::make_shared<const T>(std::move(value));
    return absl::OkStatus();
  }

  // To be called every second or so: reads it where it has changed since and does no longer. What
  // Read said then; nullopt where it was not read. A state of the file is read once.
  std::optional<absl::Status> Look() {
    const FileVersion version = VersionOf(path_);
    {
      absl::MutexLock lock(&mutex_);
      if (version == read_) return std::nullopt;
      // Else somebody may be in the midst of writing it.
      const bool rests = version == seen_;
      seen_ = version;
      if (!rests) return std::nullopt;
    }
    return Read();
  }

  // Null before it was read for the first time.
  std::shared_ptr<const T> value() const {
    absl::MutexLock lock(&mutex_);
    return value_;
  }

 private:
  const std::string path_;
  const size_t longest_;
  const Parse parse_;
  mutable absl::Mutex mutex_;
  FileVersion seen_ ABSL_GUARDED_BY(mutex_);  // when somebody looked last
  FileVersion read_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const T> value_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_REREAD_FILE_H_
