#include "analysis/causal_effect.h"

#include <algorithm>
#include <cmath>

#include "analysis/statistics.h"
#include "base/check.h"

namespace valuescope::analysis {
namespace {

template <typename Counts>
std::optional<double> ShareOf(std::span<const double> effects, const Counts& counts) {
  if (effects.empty()) return std::nullopt;
  const auto as_extreme = std::count_if(effects.begin(), effects.end(), counts);
  return static_cast<double>(1 + as_extreme) / static_cast<double>(1 + effects.size());
}

}  // namespace

bool PairedEffect::WithinNoise() const {
  return !standard_error || std::abs(mean) <= kWithin95 * *standard_error;
}

PairedEffect EffectOf(std::span<const double> unchanged, std::span<const double> changed) {
  VS_CHECK(!unchanged.empty() && unchanged.size() == changed.size());
  const auto count = static_cast<double>(unchanged.size());
  PairedEffect effect;
  for (size_t i = 0; i < unchanged.size(); ++i) effect.mean += changed[i] - unchanged[i];
  effect.mean /= count;
  if (unchanged.size() == 1) return effect;
  double squares = 0;
  for (size_t i = 0; i < unchanged.size(); ++i) {
    const double deviation = changed[i] - unchanged[i] - effect.mean;
    squares += deviation * deviation;
  }
  effect.standard_error = std::sqrt(squares / (count - 1) / count);
  return effect;
}

std::optional<double> ShareAsLarge(double effect, std::span<const double> effects) {
  return ShareOf(effects, [=](double e) { return std::abs(e) >= std::abs(effect); });
}

std::optional<double> ShareAsSmall(double effect, std::span<const double> effects) {
  return ShareOf(effects, [=](double e) { return std::abs(e) <= std::abs(effect); });
}

}  // namespace valuescope::analysis
