#include "model/half_types.h"

#include <algorithm>

#include "base/vectorised.h"

namespace valuescope::model::cpu {
namespace {

using HalfLanes __attribute__((vector_size(kLanes * sizeof(uint16_t)), aligned(2), may_alias)) =
    uint16_t;

VS_INLINED Lanes AsFloats(const LaneBits& bits) { return __builtin_bit_cast(Lanes, bits); }
VS_INLINED LaneBits AsBits(const Lanes& x) { return __builtin_bit_cast(LaneBits, x); }

constexpr uint32_t kSign = 0x80000000u;
constexpr uint32_t kInfinity = 0x7f800000u;

// The upper half of a float32.
struct BFloat16 {
  VS_INLINED Lanes Widened(const LaneBits& half) const { return AsFloats(half << 16); }

  VS_INLINED LaneBits Narrowed(const Lanes& x) const {
    const LaneBits bits = AsBits(x);
    const LaneBits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    // Rounding could make an infinity of what is no number.
    return (bits & ~kSign) > kInfinity ? LaneBits{} + 0x7fc0u : rounded;
  }
};

// 5 bits of an exponent and 10 of a fraction, where float32 has 8 and 23.
struct Float16 {
  static constexpr uint32_t kExponent = 0x1fu << 23;  // once shifted to float32's place
  static constexpr uint32_t kRebias = (127 - 15) << 23;
  static constexpr uint32_t kLeastNormal = 113 << 23;  // 2^-14
  static constexpr uint32_t kTooLarge = (127 + 16) << 23;
  // Beside it the last bit of a float32 is the last one of a number below 2^-14.
  static constexpr uint32_t kHalf = 126 << 23;

  VS_INLINED Lanes Widened(const LaneBits& half) const {
    const LaneBits shifted = (half & 0x7fffu) << 13, exponent = shifted & kExponent;
    const LaneBits usual = shifted + kRebias;
    // Below 2^-14 there is no leading one: it is put there and subtracted.
    const LaneBits small =
        AsBits(AsFloats(usual + (1u << 23)) - AsFloats(LaneBits{} + kLeastNormal));
    const LaneBits bits = exponent == 0u ? small : usual;
    const LaneBits all = exponent == kExponent ? shifted | kInfinity : bits;
    return AsFloats(all | (half & 0x8000u) << 16);
  }

  VS_INLINED LaneBits Narrowed(const Lanes& x) const {
    const LaneBits own = AsBits(x), sign = own & kSign, bits = own ^ sign;
    const LaneBits usual = (bits - kRebias + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    const LaneBits small = AsBits(AsFloats(bits) + AsFloats(LaneBits{} + kHalf)) - kHalf;
    const LaneBits large = bits > kInfinity ? LaneBits{} + 0x7e00u : LaneBits{} + 0x7c00u;
    const LaneBits finite = bits < kLeastNormal ? small : usual;
    return (bits >= kTooLarge ? large : finite) | sign >> 16;
  }
};

VS_INLINED LaneBits HalvesAt(const uint16_t* x) {
  return __builtin_convertvector(*reinterpret_cast<const HalfLanes*>(x), LaneBits);
}

template <typename Type>
VS_INLINED void WidenRow(const Type& type, const uint16_t* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) LanesAt(to + i) = type.Widened(HalvesAt(from + i));
  if (i == count) return;
  uint16_t rest[kLanes] = {};
  float wide[kLanes];
  std::copy_n(from + i, count - i, rest);
  LanesAt(wide) = type.Widened(HalvesAt(rest));
  std::copy_n(wide, count - i, to + i);
}

template <typename Type>
VS_INLINED void NarrowRow(const Type& type, const float* from, int64_t count, uint16_t* to) {
  const auto store = [](const LaneBits& bits, uint16_t* place) {
    *reinterpret_cast<HalfLanes*>(place) = __builtin_convertvector(bits, HalfLanes);
  };
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(type.Narrowed(LanesAt(from + i)), to + i);
  if (i == count) return;
  float wide[kLanes] = {};
  uint16_t rest[kLanes];
  std::copy_n(from + i, count - i, wide);
  store(type.Narrowed(LanesAt(wide)), rest);
  std::copy_n(rest, count - i, to + i);
}

VS_VECTORISED void WidenBFloat16(const uint16_t* from, int64_t stride, int64_t rows, int64_t width,
                                 float* to) {
  for (int64_t r = 0; r < rows; ++r) WidenRow(BFloat16(), from + r * stride, width, to + r * width);
}

VS_VECTORISED void WidenFloat16(const uint16_t* from, int64_t stride, int64_t rows, int64_t width,
                                float* to) {
  for (int64_t r = 0; r < rows; ++r) WidenRow(Float16(), from + r * stride, width, to + r * width);
}

VS_VECTORISED void NarrowToBFloat16(const float* from, int64_t count, uint16_t* to) {
  NarrowRow(BFloat16(), from, count, to);
}

VS_VECTORISED void NarrowToFloat16(const float* from, int64_t count, uint16_t* to) {
  NarrowRow(Float16(), from, count, to);
}

}  // namespace

// Both types are wrapped bits.
void Widen(const c10::BFloat16* from, int64_t stride, int64_t rows, int64_t width, float* to) {
  WidenBFloat16(&from->x, stride, rows, width, to);
}
void Widen(const c10::Half* from, int64_t stride, int64_t rows, int64_t width, float* to) {
  WidenFloat16(&from->x, stride, rows, width, to);
}
void Narrow(const float* from, int64_t count, c10::BFloat16* to) {
  NarrowToBFloat16(from, count, &to->x);
}
void Narrow(const float* from, int64_t count, c10::Half* to) {
  NarrowToFloat16(from, count, &to->x);
}

}  // namespace valuescope::model::cpu
