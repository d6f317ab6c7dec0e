#include "base/host_tensor.h"

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope {
namespace {

float FloatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float FromBFloat16(uint16_t bits) { return FloatFromBits(static_cast<uint32_t>(bits) << 16); }

// IEEE half: subnormals are scaled by the float unit, infinities and NaNs keep their payload.
float FromFloat16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  if (exponent == 31) return FloatFromBits(sign | 0x7f800000u | (mantissa << 13));
  return FloatFromBits(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

template <typename T, typename Convert>
std::vector<float> Converted(const HostTensor& tensor, Convert convert) {
  const auto elements = tensor.As<T>();
  std::vector<float> result;
  result.reserve(elements.size());
  for (const T element : elements) result.push_back(convert(element));
  return result;
}

}  // namespace

int64_t HostTensor::NumElements() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) count *= dimension;
  return count;
}

HostTensor HostTensor::Zeros(DType dtype, std::vector<int64_t> shape) {
  HostTensor tensor{.dtype = dtype, .shape = std::move(shape), .bytes = {}};
  tensor.bytes.resize(static_cast<size_t>(tensor.NumElements() * SizeOf(dtype)));
  return tensor;
}

absl::StatusOr<int64_t> CheckedByteSize(DType dtype, std::span<const int64_t> shape) {
  constexpr int64_t kLimit = int64_t{1} << 62;
  int64_t bytes = SizeOf(dtype);
  for (const int64_t dimension : shape) {
    if (dimension < 0) {
      return InvalidField("shape", absl::StrCat("has the negative dimension ", dimension));
    }
    if (dimension != 0 && bytes > kLimit / dimension) {
      return InvalidField("shape", "has more elements than can be addressed");
    }
    bytes *= dimension;
  }
  return bytes;
}

absl::StatusOr<std::vector<float>> ToFloat32(const HostTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kFloat32:
      return Converted<float>(tensor, [](float x) { return x; });
    case DType::kFloat64:
      return Converted<double>(tensor, [](double x) { return static_cast<float>(x); });
    case DType::kBFloat16:
      return Converted<uint16_t>(tensor, FromBFloat16);
    case DType::kFloat16:
      return Converted<uint16_t>(tensor, FromFloat16);
    case DType::kInt32:
    case DType::kInt64:
      break;
  }
  return InvalidField("dtype", absl::StrCat("is ", NameOf(tensor.dtype),
                                            ", allowed are float32, float16, bfloat16, float64"));
}

}  // namespace valuescope
