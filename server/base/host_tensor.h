// A dense tensor in host memory, known to rooms that may not see torch: row-major, little-endian
// bytes and their shape. It owns its bytes; moving is cheap, copying copies.
#ifndef VALUESCOPE_BASE_HOST_TENSOR_H_
#define VALUESCOPE_BASE_HOST_TENSOR_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/check.h"
#include "base/dtype.h"

namespace valuescope {

struct HostTensor {
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  std::string bytes;  // NumElements() * SizeOf(dtype)

  int64_t NumElements() const;

  // The elements as `T`, which must be the C++ type of `dtype` (float, double, int32_t, int64_t).
  template <typename T>
  std::span<const T> As() const {
    VS_CHECK(sizeof(T) == static_cast<size_t>(SizeOf(dtype)));
    return {reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T)};
  }
  template <typename T>
  std::span<T> MutableAs() {
    VS_CHECK(sizeof(T) == static_cast<size_t>(SizeOf(dtype)));
    return {reinterpret_cast<T*>(bytes.data()), bytes.size() / sizeof(T)};
  }

  static HostTensor Zeros(DType dtype, std::vector<int64_t> shape);
};

// Product of `shape` times the element size. INVALID_ARGUMENT on a negative dimension or a product
// above 2^62 (checked before any allocation).
absl::StatusOr<int64_t> CheckedByteSize(DType dtype, std::span<const int64_t> shape);

// A float32 copy, converting float16, bfloat16 and float64. INVALID_ARGUMENT for integer tensors.
absl::StatusOr<std::vector<float>> ToFloat32(const HostTensor& tensor);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_HOST_TENSOR_H_
