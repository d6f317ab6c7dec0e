// GGUF, llama.cpp's container: "GGUF", version, number of tensors, number of metadata pairs; the
// pairs (key, type, value); a table of tensors (name, shape, type, offset); zeros up to the
// alignment; the tensors' bytes, each aligned. Numbers are little-endian, strings a 64-bit length
// and bytes, shapes fastest dimension first. Files are never trusted: every length, count and
// offset is checked before it is used, and nothing is allocated by what a file announces.
#ifndef VALUESCOPE_STUDIES_GGUF_FILE_H_
#define VALUESCOPE_STUDIES_GGUF_FILE_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/dtype.h"
#include "studies/tensor_file.h"

namespace valuescope::studies {

// What a pair of the metadata holds, by its number in the format.
enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// The characters of a string, the bytes of anything else.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  absl::string_view bytes;
};

struct GgufTensor {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;  // fastest dimension first
  absl::string_view bytes;
};

// What a file holds; its views are into the bytes that were parsed.
struct GgufFile {
  std::map<std::string, GgufValue, std::less<>> metadata;
  std::map<std::string, GgufTensor, std::less<>> tensors;
};

// INVALID_ARGUMENT, reason MALFORMED_FILE, naming the byte and what is wrong there: another format
// or version, a length or count beyond the file, more than 4096 pairs or tensors, a name twice,
// types other than F32, F16 and BF16, offsets that are not aligned, tensors that overlap or pass
// the end.
absl::StatusOr<GgufFile> ParseGguf(absl::string_view bytes);

// A pair of the metadata to write.
struct GgufPair {
  std::string key;
  std::variant<std::string, uint32_t> value;
};

// The file: version 3, pairs and tensors in the order given; a tensor's shape is one of numpy's,
// slowest dimension first, and its type FLOAT32. Equal contents give equal bytes.
std::string WriteGguf(std::span<const GgufPair> metadata, std::span<const NamedTensor> tensors);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_GGUF_FILE_H_
