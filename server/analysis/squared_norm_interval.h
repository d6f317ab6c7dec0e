// How far the squared norm of a difference in means v can be from that of the true vector.
//
// |v|^2 exceeds the true square by the noise in v, tr V with V the covariance of v, which is
// subtracted. What is left errs by 2 <true, noise> + |noise|^2 - tr V, whose shape is that of a
// normal where the effect or many directions carry it, and that of a squared normal where one noisy
// direction does. So v is taken apart. In the h noisiest directions, of variance lambda each, the
// interval is that of all squares (|w| +- z sqrt(lambda))^2 where h = 1, and
//   estimate - true within (z^2 - 1) lambda +- z sqrt(4 lambda true + 2 (h - 1) lambda^2)
// in general; all the other directions give +- z sqrt(4 mu true + 2 (tr V^2 - h lambda^2)), mu
// being the variance where the effect lies. The deviations of both add as squares do (the method
// of variance estimates recovery). lambda, h and mu come from tr V^k and v' V^k v, which are
// estimated without bias, so that no direction need be found; z is Student's.
//
// The size of each end holds for an effect in whatever direction. Simulation (tests/bench/coverage)
// shows the coverage.
#ifndef VALUESCOPE_ANALYSIS_SQUARED_NORM_INTERVAL_H_
#define VALUESCOPE_ANALYSIS_SQUARED_NORM_INTERVAL_H_

#include <cstdint>
#include <span>

#include "analysis/statistics.h"

namespace valuescope::analysis {

// Of W, an estimate of V: the sum of e_c e_c' over independent clusters c.
struct CovarianceEstimate {
  int64_t width = 1;   // of v
  double freedom = 1;  // degrees of freedom, above 0
  double trace = 0;
  double trace_of_square = 0;
  double trace_of_cube = 0;
  double largest_eigenvalue = 0;
};

// From the inner products <e_c, e_d>, [clusters, clusters] row-major.
CovarianceEstimate EstimateCovariance(std::span<const double> gram, int64_t clusters, int64_t width,
                                      double freedom);

struct SquaredNorm {
  double estimate = 0;  // |v|^2 less the noise in it
  double observed = 0;  // |v|^2
  double once = 0;      // v' W v
  double twice = 0;     // v' W W v
};

// Interval of the true squared norm with coverage `level`, at least 0.9 and
// below 1. Either end may be below 0,
// as the estimate may.
ConfidenceInterval SquaredNormInterval(const SquaredNorm& norm,
                                       const CovarianceEstimate& covariance, double level);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_SQUARED_NORM_INTERVAL_H_
