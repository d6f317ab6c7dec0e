// The element types that tensors have on disk, on the wire and on the device.
#ifndef VALUESCOPE_BASE_DTYPE_H_
#define VALUESCOPE_BASE_DTYPE_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace valuescope {

enum class DType : uint8_t { kFloat32, kFloat16, kBFloat16, kFloat64, kInt32, kInt64 };

constexpr int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
  }
  return 0;
}

// "float32", "bfloat16", ... as Hugging Face configs and flags spell them.
constexpr absl::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kFloat16:
      return "float16";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat64:
      return "float64";
    case DType::kInt32:
      return "int32";
    case DType::kInt64:
      return "int64";
  }
  return "";
}

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_DTYPE_H_
