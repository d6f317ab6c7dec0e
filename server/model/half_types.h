// What the types of a model are to a CPU's kernels, which compute in float32: rows of the half
// ones, bfloat16 and float16, are widened, which loses nothing, and what comes of them is rounded
// to the nearest number, of two equally near ones to the even. Every processor gives the same bits.
#ifndef VALUESCOPE_MODEL_HALF_TYPES_H_
#define VALUESCOPE_MODEL_HALF_TYPES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/check.h"

namespace valuescope::model::cpu {

// to [rows, width] becomes `rows` rows of `from`, which are `stride` apart.
void Widen(const c10::BFloat16* from, int64_t stride, int64_t rows, int64_t width, float* to);
void Widen(const c10::Half* from, int64_t stride, int64_t rows, int64_t width, float* to);

// to [count] becomes from [count], rounded.
void Narrow(const float* from, int64_t count, c10::BFloat16* to);
void Narrow(const float* from, int64_t count, c10::Half* to);

inline void Widen(const float* from, int64_t count, float* to) {
  std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}
inline void Widen(const c10::BFloat16* from, int64_t count, float* to) {
  Widen(from, count, 1, count, to);
}
inline void Widen(const c10::Half* from, int64_t count, float* to) {
  Widen(from, count, 1, count, to);
}

// Rows of T as float32: in memory of their own, `rows` of them, or where T is float32 themselves.
template <typename T>
class WideRows {
 public:
  WideRows(int64_t rows, int64_t width) : width_(width) {
    if constexpr (!kAreWide) memory_.resize(static_cast<size_t>(rows * width));
  }

  // The numbers of `row`, whose memory is that at `place`.
  const float* Read(const T* row, int64_t place = 0) {
    if constexpr (kAreWide) {
      return row;
    } else {
      Widen(row, width_, At(place));
      return At(place);
    }
  }

  // Where what is read of `row` stands, or shall be put before it is written.
  float* Of(T* row, int64_t place = 0) {
    if constexpr (kAreWide) {
      return row;
    } else {
      return At(place);
    }
  }

  void Write(T* row, int64_t place = 0) {
    if constexpr (!kAreWide) Narrow(At(place), width_, row);
  }

 private:
  static constexpr bool kAreWide = std::is_same_v<T, float>;

  float* At(int64_t place) { return memory_.data() + place * width_; }

  const int64_t width_;
  std::vector<float> memory_;
};

// Whether it is one of the types that models have.
inline bool IsModelType(c10::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

// Calls function(T()) for the T that x, which is of a model's type, consists of.
template <typename Function>
void ForTypeOf(const at::Tensor& x, const Function& function) {
  switch (x.scalar_type()) {
    case at::kBFloat16:
      return function(c10::BFloat16());
    case at::kHalf:
      return function(c10::Half());
    default:
      VS_CHECK(x.scalar_type() == at::kFloat);
      return function(float());
  }
}

}  // namespace valuescope::model::cpu

#endif  // VALUESCOPE_MODEL_HALF_TYPES_H_
