// Directions drawn evenly over the sphere, to hold a vector's effect against. Elements are normal
// numbers by Box and Muller (1958): with u_n output n of SplitMix64 as a number in [0, 1), its 53
// upper bits, elements 2i and 2i + 1 are sqrt(-2 log(1 - u_2i)) times the cosine and the sine of
// 2 pi u_(2i+1). Then the whole is brought to the norm wanted.
#ifndef VALUESCOPE_ANALYSIS_RANDOM_DIRECTION_H_
#define VALUESCOPE_ANALYSIS_RANDOM_DIRECTION_H_

#include <cstdint>
#include <vector>

namespace valuescope::analysis {

// [width], width > 0. Equal seeds give equal directions.
std::vector<float> RandomDirection(int64_t width, double norm, uint64_t seed);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_RANDOM_DIRECTION_H_
