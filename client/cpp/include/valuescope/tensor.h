// Tensors of the contract (v1::Tensor: element type, shape, bytes) as typed spans of their
// elements.
#ifndef VALUESCOPE_TENSOR_H_
#define VALUESCOPE_TENSOR_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope {

// Two-byte floats, as they travel. Types of their own: neither is a number to calculate with, and
// one is not the other.
struct Float16 {  // IEEE 754 binary16
  uint16_t bits = 0;
  float ToFloat() const;  // exact
  friend bool operator==(Float16, Float16) = default;
};
struct BFloat16 {  // the upper half of a binary32
  uint16_t bits = 0;
  float ToFloat() const;  // exact
  friend bool operator==(BFloat16, BFloat16) = default;
};

// The elements of a tensor of exactly this type, row-major, without a copy: they live as long as
// `tensor` is neither changed nor destroyed. T is float, double, Float16, BFloat16, int32_t or
// int64_t. INVALID_ARGUMENT where the tensor has another type, a negative or overflowing shape, or
// a number of bytes that is not product(shape) x sizeof(T).
template <typename T>
absl::StatusOr<std::span<const T>> TensorSpan(const v1::Tensor& tensor);
template <typename T>
absl::StatusOr<std::span<const T>> TensorSpan(v1::Tensor&& tensor) = delete;

// The elements of a float32, float64, float16 or bfloat16 tensor as float32, row-major.
// INVALID_ARGUMENT for other types and where the bytes do not match the shape.
absl::StatusOr<std::vector<float>> TensorElements(const v1::Tensor& tensor);

// A tensor of `shape` from its elements in row-major order. INVALID_ARGUMENT where their number is
// not product(shape).
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const float> elements,
                                      const std::vector<int64_t>& shape);
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const double> elements,
                                      const std::vector<int64_t>& shape);
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const Float16> elements,
                                      const std::vector<int64_t>& shape);
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const BFloat16> elements,
                                      const std::vector<int64_t>& shape);
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const int32_t> elements,
                                      const std::vector<int64_t>& shape);
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const int64_t> elements,
                                      const std::vector<int64_t>& shape);

}  // namespace valuescope

#endif  // VALUESCOPE_TENSOR_H_
