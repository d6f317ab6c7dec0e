// Reads .safetensors files: eight bytes of header length, a JSON header naming each tensor's type,
// shape and byte range, then the bytes. Files are memory-mapped and never trusted: every size and
// offset is checked before it is used.
#ifndef VALUESCOPE_MODEL_SAFETENSORS_H_
#define VALUESCOPE_MODEL_SAFETENSORS_H_

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/dtype.h"

namespace valuescope::model {

struct StoredTensor {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  absl::string_view bytes;  // within the mapping
};

// A regular file beneath a folder, mapped read-only. Symbolic links that lead out of the folder are
// refused.
class MappedFile {
 public:
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& folder,
                                                          const std::string& name);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  absl::string_view bytes() const { return bytes_; }

  // Whether the file is as long and as old as when it was opened. Behind the end of one that was
  // cut short, reading the bytes would end the process.
  bool IsUnchanged() const;

  // Gives the memory of `part` of the bytes back to the system, which reads the file again where
  // someone asks again.
  static void Release(absl::string_view part);

 private:
  MappedFile(int file, const struct stat& facts, absl::string_view bytes);

  const int file_;  // open, because only through it the bytes' own file can be asked
  const int64_t size_, seconds_, nanoseconds_;  // of its last change
  absl::string_view bytes_;
};

// Tensors by name. Refuses, naming the tensor: a header over 100 MB or beyond the file, malformed
// JSON, duplicate names, unknown types, shapes whose size is not their byte range, ranges that
// overlap, leave holes or pass the end.
absl::StatusOr<std::map<std::string, StoredTensor>> ParseSafetensors(absl::string_view file_name,
                                                                     absl::string_view bytes);

// The weight files of a Hugging Face folder in name order, each with the tensors that the index
// promises in it: those that model.safetensors.index.json names, or model.safetensors alone, of
// which nothing is promised.
absl::StatusOr<std::map<std::string, std::set<std::string>>> WeightFiles(const std::string& folder);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_SAFETENSORS_H_
