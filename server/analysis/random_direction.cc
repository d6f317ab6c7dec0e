#include "analysis/random_direction.h"

#include <cmath>
#include <numbers>

#include "base/split_mix.h"

namespace valuescope::analysis {
namespace {

// In [0, 1).
double Uniform(uint64_t seed, uint64_t number) {
  return static_cast<double>(SplitMix64(seed, number) >> 11) * 0x1p-53;
}

}  // namespace

std::vector<float> RandomDirection(int64_t width, double norm, uint64_t seed) {
  std::vector<double> elements(static_cast<size_t>(width));
  double square = 0;
  for (size_t i = 0; i < elements.size(); ++i) {
    const uint64_t even = i - i % 2;
    const double length = std::sqrt(-2 * std::log1p(-Uniform(seed, even)));
    const double angle = 2 * std::numbers::pi * Uniform(seed, even + 1);
    elements[i] = length * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
    square += elements[i] * elements[i];
  }
  const double scale = norm / std::sqrt(square);
  std::vector<float> direction;
  direction.reserve(elements.size());
  for (const double element : elements) direction.push_back(static_cast<float>(element * scale));
  return direction;
}

}  // namespace valuescope::analysis
