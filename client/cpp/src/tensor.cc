#include "valuescope/tensor.h"

#include <bit>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace valuescope {
namespace {

// The contract's bytes are little-endian; spans show them as they came.
static_assert(std::endian::native == std::endian::little);

template <typename T>
constexpr v1::DataType kTypeOf = v1::DATA_TYPE_UNSPECIFIED;
template <>
constexpr v1::DataType kTypeOf<float> = v1::DATA_TYPE_FLOAT32;
template <>
constexpr v1::DataType kTypeOf<double> = v1::DATA_TYPE_FLOAT64;
template <>
constexpr v1::DataType kTypeOf<Float16> = v1::DATA_TYPE_FLOAT16;
template <>
constexpr v1::DataType kTypeOf<BFloat16> = v1::DATA_TYPE_BFLOAT16;
template <>
constexpr v1::DataType kTypeOf<int32_t> = v1::DATA_TYPE_INT32;
template <>
constexpr v1::DataType kTypeOf<int64_t> = v1::DATA_TYPE_INT64;

// Product of the dimensions, or nothing for a negative one or more than any message holds.
template <typename Dimensions>
std::optional<int64_t> ElementCount(const Dimensions& shape) {
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 0 || (dimension > 0 && count > (int64_t{1} << 48) / dimension)) {
      return std::nullopt;
    }
    count *= dimension;
  }
  return count;
}

template <typename T>
absl::StatusOr<v1::Tensor> Make(std::span<const T> elements, const std::vector<int64_t>& shape) {
  const std::optional<int64_t> count = ElementCount(shape);
  if (!count || *count != static_cast<int64_t>(elements.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tensor of this shape does not have ", elements.size(), " elements"));
  }
  v1::Tensor tensor;
  tensor.set_dtype(kTypeOf<T>);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  tensor.set_data(elements.data(), elements.size_bytes());
  return tensor;
}

template <typename T>
absl::StatusOr<std::vector<float>> Converted(const v1::Tensor& tensor) {
  const absl::StatusOr<std::span<const T>> elements = TensorSpan<T>(tensor);
  if (!elements.ok()) return elements.status();
  std::vector<float> floats;
  floats.reserve(elements->size());
  for (const T element : *elements) {
    if constexpr (requires { element.ToFloat(); }) {
      floats.push_back(element.ToFloat());
    } else {
      floats.push_back(static_cast<float>(element));
    }
  }
  return floats;
}

}  // namespace

float Float16::ToFloat() const {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: multiples of 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) |
                              (mantissa << 13));
}

float BFloat16::ToFloat() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

template <typename T>
absl::StatusOr<std::span<const T>> TensorSpan(const v1::Tensor& tensor) {
  if (tensor.dtype() != kTypeOf<T>) {
    return absl::InvalidArgumentError(
        absl::StrCat("a tensor of ", v1::DataType_Name(tensor.dtype()), " is not one of ",
                     v1::DataType_Name(kTypeOf<T>)));
  }
  const std::optional<int64_t> count = ElementCount(tensor.shape());
  if (!count ||
      *count * static_cast<int64_t>(sizeof(T)) != static_cast<int64_t>(tensor.data().size())) {
    return absl::InvalidArgumentError("the tensor's bytes do not match its shape");
  }
  // A string's bytes, on the heap or inside the string, are aligned for any of these types.
  return std::span<const T>(reinterpret_cast<const T*>(tensor.data().data()),
                            static_cast<size_t>(*count));
}
template absl::StatusOr<std::span<const float>> TensorSpan(const v1::Tensor& tensor);
template absl::StatusOr<std::span<const double>> TensorSpan(const v1::Tensor& tensor);
template absl::StatusOr<std::span<const Float16>> TensorSpan(const v1::Tensor& tensor);
template absl::StatusOr<std::span<const BFloat16>> TensorSpan(const v1::Tensor& tensor);
template absl::StatusOr<std::span<const int32_t>> TensorSpan(const v1::Tensor& tensor);
template absl::StatusOr<std::span<const int64_t>> TensorSpan(const v1::Tensor& tensor);

absl::StatusOr<std::vector<float>> TensorElements(const v1::Tensor& tensor) {
  switch (tensor.dtype()) {
    case v1::DATA_TYPE_FLOAT32:
      return Converted<float>(tensor);
    case v1::DATA_TYPE_FLOAT64:
      return Converted<double>(tensor);
    case v1::DATA_TYPE_FLOAT16:
      return Converted<Float16>(tensor);
    case v1::DATA_TYPE_BFLOAT16:
      return Converted<BFloat16>(tensor);
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("not a tensor of floats: ", v1::DataType_Name(tensor.dtype())));
  }
}

absl::StatusOr<v1::Tensor> MakeTensor(std::span<const float> elements,
                                      const std::vector<int64_t>& shape) {
  return Make(elements, shape);
}
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const double> elements,
                                      const std::vector<int64_t>& shape) {
  return Make(elements, shape);
}
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const Float16> elements,
                                      const std::vector<int64_t>& shape) {
  return Make(elements, shape);
}
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const BFloat16> elements,
                                      const std::vector<int64_t>& shape) {
  return Make(elements, shape);
}
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const int32_t> elements,
                                      const std::vector<int64_t>& shape) {
  return Make(elements, shape);
}
absl::StatusOr<v1::Tensor> MakeTensor(std::span<const int64_t> elements,
                                      const std::vector<int64_t>& shape) {
  return Make(elements, shape);
}

}  // namespace valuescope
