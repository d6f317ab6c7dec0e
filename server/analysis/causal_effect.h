// What a change of the model does to a number M that is measured on every response: the mean over
// the responses of M with the change less M without it, and whether changes that are drawn at
// random do as much.
#ifndef VALUESCOPE_ANALYSIS_CAUSAL_EFFECT_H_
#define VALUESCOPE_ANALYSIS_CAUSAL_EFFECT_H_

#include <optional>
#include <span>

namespace valuescope::analysis {

struct PairedEffect {
  double mean = 0;                       // of changed - unchanged
  std::optional<double> standard_error;  // of that; absent with one response

  // Whether it is within noise: no larger than 1.96 standard errors, or nobody can tell.
  bool WithinNoise() const;
};

// [responses] each, at least one; M of the same responses.
PairedEffect EffectOf(std::span<const double> unchanged, std::span<const double> changed);

// The part of `effects` and of `effect` itself that is at least as large as `effect`, signs apart:
//   (1 + number of |e| >= |effect|) / (1 + number of e)
// (Phipson and Smyth, 2010: counting it in keeps p above 0 and the test valid). Absent for none.
std::optional<double> ShareAsLarge(double effect, std::span<const double> effects);

// The same of those that are at most as large.
std::optional<double> ShareAsSmall(double effect, std::span<const double> effects);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_CAUSAL_EFFECT_H_
