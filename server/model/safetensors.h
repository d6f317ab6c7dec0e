// Reads .safetensors files: eight bytes of header length, a JSON header naming each tensor's type,
// shape and byte range, then the bytes. Files are never trusted: every size and offset is checked
// before it is used. They are read, not mapped: behind the end of a mapped file that somebody cuts
// short waits a signal that ends the process.
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

// A tensor of a file that is not read yet.
struct TensorPlace {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // of its first byte in the file
  int64_t size = 0;    // bytes
};

// A regular file beneath a folder, open for reading. Symbolic links that lead out of the folder are
// refused. Thread-safe.
class ModelFile {
 public:
  static absl::StatusOr<std::unique_ptr<ModelFile>> Open(const std::string& folder,
                                                         const std::string& name);
  ~ModelFile();
  ModelFile(const ModelFile&) = delete;
  ModelFile& operator=(const ModelFile&) = delete;

  const std::string& name() const { return name_; }
  int64_t size() const { return size_; }

  // Reads bytes offset .. offset + size - 1, which lie within size(), to `bytes`.
  // FAILED_PRECONDITION, reason MODEL_FILES_CHANGED, where the file has become shorter.
  absl::Status Read(int64_t offset, int64_t size, char* bytes) const;

  // All of it. INVALID_ARGUMENT where it has more than `most` bytes.
  absl::StatusOr<std::string> ReadAll(int64_t most) const;

  // Whether the file is as long and as old as when it was opened.
  bool IsUnchanged() const;

 private:
  ModelFile(std::string name, int file, const struct stat& facts);

  const std::string name_;
  const int file_;
  const int64_t size_, seconds_, nanoseconds_;  // of its last change
};

// FAILED_PRECONDITION, reason MODEL_FILES_CHANGED.
absl::Status ModelFilesChanged();

// A model's tensors by name; of the file only the header is read. Refuses, naming the tensor: a
// header over 100 MB or beyond the file, malformed JSON, duplicate names, unknown types, shapes
// whose size is not their byte range, ranges that overlap, leave holes or pass the end.
absl::StatusOr<std::map<std::string, TensorPlace>> ReadTensorPlaces(const ModelFile& file);

// The weight files of a Hugging Face folder in name order, each with the tensors that the index
// promises in it: model.safetensors, of which nothing is promised, or where there is none those
// that model.safetensors.index.json names. Where there is neither, the refusal names weights of a
// kind that is not served.
absl::StatusOr<std::map<std::string, std::set<std::string>>> WeightFiles(const std::string& folder);

// A tensor of a file that is in memory as a whole.
struct StoredTensor {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  absl::string_view bytes;  // within the file's
};

// Tensors by name of such a file, as studies store them: weights are never read like this. Refuses
// what ReadTensorPlaces refuses. `metadata`, unless null, gets the strings of __metadata__.
absl::StatusOr<std::map<std::string, StoredTensor>> ParseSafetensors(
    absl::string_view file_name, absl::string_view bytes,
    std::map<std::string, std::string>* metadata = nullptr);

// Bytes of the JSON header that the beginning of a file of `file_size` bytes announces: how much
// ParseSafetensors would parse. INVALID_ARGUMENT as there.
absl::StatusOr<int64_t> SafetensorsHeaderBytes(absl::string_view file_name, absl::string_view begin,
                                               int64_t file_size);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_SAFETENSORS_H_
