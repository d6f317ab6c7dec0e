// Files of the machine: opened, read and written whole, with errors that users may see.
#ifndef VALUESCOPE_STORE_OPEN_FILE_H_
#define VALUESCOPE_STORE_OPEN_FILE_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "store/blob_store.h"

namespace valuescope::store {

// What the system said (`error`, as in errno) when the blob store tried to `step`: UNAVAILABLE,
// reason STORAGE_FULL or STORAGE_UNREACHABLE. Messages name the failed step, never the path.
absl::Status FileError(absl::string_view step, int error);

// An open file, closed with its scope.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor();
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return value_; }

 private:
  const int value_;
};

// Fills `out` from `offset` on; DATA_LOSS, `too_short`, where the file ends before.
absl::Status ReadFully(const Descriptor& file, int64_t offset, std::span<char> out,
                       absl::string_view too_short);

absl::Status WriteFully(const Descriptor& file, int64_t offset, absl::string_view bytes);

// A file without a name in `folder`: it goes with its descriptor, whatever ends the process.
absl::StatusOr<std::unique_ptr<ScratchFile>> MakeScratchFile(const std::filesystem::path& folder);

}  // namespace valuescope::store

#endif  // VALUESCOPE_STORE_OPEN_FILE_H_
