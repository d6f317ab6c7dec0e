// What loops over numbers share that the compiler vectorises. Only for .cc files that are compiled
// with -O3 for this purpose.
#ifndef VALUESCOPE_BASE_VECTORISED_H_
#define VALUESCOPE_BASE_VECTORISED_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

// Before a function: one binary serves every x86-64, and the loader picks the widest variant that
// the machine has. Tools that only read the code (clang's) know clones under other rules, and
// ThreadSanitizer would run in the loader's choice before it can.
#if defined(__clang__) || defined(__SANITIZE_THREAD__)
#define VS_VECTORISED
#else
#define VS_VECTORISED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))
#endif

// Never a call: what is called would be compiled for every processor, and round otherwise than the
// same inside a variant for one that multiplies and adds at once.
#define VS_INLINED inline __attribute__((always_inline))

namespace valuescope {

// A vector that compilers know on every machine and split where the machine's are narrower.
inline constexpr int kLanes = 16;
using Lanes __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias)) = float;
using LaneBits __attribute__((vector_size(kLanes * sizeof(float)))) = uint32_t;

// How code that holds many vectors in registers is written for vectors of 64 bytes and of 32 both:
// a template over one of these. Compilers would split the former where a processor has only the
// latter, but hold both halves of each at once, for which there are not the registers, and compare
// and permute them number by number.
struct Whole {
  using Floats = Lanes;
  using Bits = LaneBits;
  static constexpr int kWidth = kLanes;
};
struct Halved {
  static constexpr int kWidth = kLanes / 2;
  using Floats __attribute__((vector_size(kWidth * sizeof(float)), aligned(4), may_alias)) = float;
  using Bits __attribute__((vector_size(kWidth * sizeof(float)))) = uint32_t;
};

template <typename V>
VS_INLINED const typename V::Floats& VectorAt(const float* x) {
  return *reinterpret_cast<const typename V::Floats*>(x);
}
template <typename V>
VS_INLINED typename V::Floats& VectorAt(float* x) {
  return *reinterpret_cast<typename V::Floats*>(x);
}

VS_INLINED const Lanes& LanesAt(const float* x) { return *reinterpret_cast<const Lanes*>(x); }
VS_INLINED Lanes& LanesAt(float* x) { return *reinterpret_cast<Lanes*>(x); }

// Below it, ExpOfNonPositive gives what it gives here, some 1e-38.
inline constexpr float kLeastExponent = -87.0f;

// exp(x) for x <= 0 as 2^n * p(f): the polynomial is Cephes' expf, within 2 ulp, and vectorises
// where std::exp does not.
VS_INLINED float ExpOfNonPositive(float x) {
  x = std::max(x, kLeastExponent);
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float f = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return p * scale;
}

// The same in place of every lane's x. Adding 1.5 * 2^23 rounds to a whole number, whose bits are
// then the lowest ones.
template <typename V>
VS_INLINED void TakeExpOfNonPositive(typename V::Floats& x) {
  using Floats = typename V::Floats;
  using Bits = typename V::Bits;
  constexpr float kRounds = 12582912.0f;
  x = x < kLeastExponent ? Floats{} + kLeastExponent : x;
  const Floats rounded = x * 1.44269504088896341f + kRounds;
  const Floats n = rounded - kRounds;
  const Floats f = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = f * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  // Not std::bit_cast, for which Floats would have to be aligned as a vector.
  x = p * __builtin_bit_cast(Floats, (__builtin_bit_cast(Bits, rounded) + 127u) << 23);
}

VS_INLINED float Tanh(float x) {
  const float e = ExpOfNonPositive(-2.0f * std::fabs(x));
  return std::copysign((1.0f - e) / (1.0f + e), x);
}

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_VECTORISED_H_
