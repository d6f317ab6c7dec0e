// SplitMix64 (Steele, Lea and Flood, 2014): neighbouring seeds give unrelated streams, and any
// output is had without those before it.
#ifndef VALUESCOPE_BASE_SPLIT_MIX_H_
#define VALUESCOPE_BASE_SPLIT_MIX_H_

#include <cstdint>

namespace valuescope {

// Output `number`, counted from 0, of the generator seeded with `seed`.
constexpr uint64_t SplitMix64(uint64_t seed, uint64_t number) {
  uint64_t z = seed + (number + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_SPLIT_MIX_H_
