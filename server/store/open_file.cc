#include "store/open_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"

namespace valuescope::store {
namespace {

class UnnamedFile : public ScratchFile {
 public:
  explicit UnnamedFile(int descriptor) : file_(descriptor) {}

  absl::Status Write(int64_t offset, absl::string_view bytes) override {
    return WriteFully(file_, offset, bytes);
  }

  absl::Status Read(int64_t offset, std::span<char> out) const override {
    return ReadFully(file_, offset, out, "a scratch file is shorter than what was written");
  }

 private:
  const Descriptor file_;
};

}  // namespace

absl::Status FileError(absl::string_view step, int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
  return ErrorWithReason(
      absl::StatusCode::kUnavailable, full ? "STORAGE_FULL" : "STORAGE_UNREACHABLE",
      absl::StrCat("the blob store cannot ", step, ": ", std::generic_category().message(error)));
}

Descriptor::~Descriptor() {
  if (value_ >= 0) close(value_);
}

absl::Status ReadFully(const Descriptor& file, int64_t offset, std::span<char> out,
                       absl::string_view too_short) {
  while (!out.empty()) {
    const ssize_t count = pread(file.value(), out.data(), out.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("read", errno);
    if (count == 0) return absl::DataLossError(too_short);
    out = out.subspan(static_cast<size_t>(count));
    offset += count;
  }
  return absl::OkStatus();
}

absl::Status WriteFully(const Descriptor& file, int64_t offset, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = pwrite(file.value(), bytes.data(), bytes.size(), offset);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return FileError("write", errno);
    bytes.remove_prefix(static_cast<size_t>(count));
    offset += count;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ScratchFile>> MakeScratchFile(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / NewUuid();
  const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (descriptor < 0) return FileError("make a file", errno);
  auto file = std::make_unique<UnnamedFile>(descriptor);
  if (unlink(path.c_str()) != 0) return FileError("make a file", errno);
  return file;
}

}  // namespace valuescope::store
