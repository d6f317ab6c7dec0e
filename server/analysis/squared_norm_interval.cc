#include "analysis/squared_norm_interval.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "analysis/inner_product.h"
#include "analysis/statistics.h"
#include "base/check.h"

namespace valuescope::analysis {
namespace {

// Enough for an eigenvalue that stands out; of others any will do.
constexpr int kPowerSteps = 50;
// Relative; below it all of v counts as lying in the noisiest directions.
constexpr double kNoGap = 1e-6;

using Matrix = std::span<const double>;  // [size, size] row-major, symmetric

// The power method, from the longest cluster.
double LargestEigenvalue(Matrix gram, size_t size) {
  size_t longest = 0;
  for (size_t c = 1; c < size; ++c) {
    if (gram[c * size + c] > gram[longest * size + longest]) longest = c;
  }
  std::vector<double> vector(gram.begin() + longest * size, gram.begin() + (longest + 1) * size);
  double eigenvalue = 0;
  for (int step = 0; step <= kPowerSteps; ++step) {
    const double norm = Norm(vector);
    if (norm == 0) return 0;
    for (double& element : vector) element /= norm;
    std::vector<double> next = MatrixProduct(gram, vector);
    eigenvalue = InnerProduct(vector, next);
    vector = std::move(next);
  }
  return eigenvalue;
}

// tr M^3.
double TraceOfCube(Matrix gram, size_t size) {
  double trace = 0;
  std::vector<double> row_of_square(size);
  for (size_t row = 0; row < size; ++row) {
    std::fill(row_of_square.begin(), row_of_square.end(), 0.0);
    for (size_t k = 0; k < size; ++k) {
      const double factor = gram[row * size + k];
      for (size_t i = 0; i < size; ++i) row_of_square[i] += factor * gram[k * size + i];
    }
    trace += InnerProduct(row_of_square, gram.subspan(row * size, size));
  }
  return trace;
}

// tr V^k, k = 1 .. 3.
struct Traces {
  double first = 0;
  double second = 0;
  double third = 0;
};

// Without bias where W is Wishart's; then within what a covariance can have.
Traces TracesOf(const CovarianceEstimate& w) {
  const double n = w.freedom, t1 = w.trace;
  Traces out = {.first = t1, .second = t1 * t1, .third = t1 * t1 * t1};
  if (n <= 1) return out;
  out.second = (w.trace_of_square - t1 * t1 / n) * n * n / ((n - 1) * (n + 2));
  out.second = std::clamp(out.second, t1 * t1 / static_cast<double>(w.width), t1 * t1);
  const double most = out.second * std::sqrt(out.second);
  out.third = most;
  if (n <= 2) return out;
  out.third = w.trace_of_cube - 3 * w.trace_of_square * t1 / n + 2 * t1 * t1 * t1 / (n * n);
  out.third *= n * n * n * n / ((n - 1) * (n - 2) * (n + 2) * (n + 4));
  out.third = std::min(std::max(out.third, out.second * out.second / t1), most);
  return out;
}

// The two parts of the error; see the head of the header.
struct Deviations {
  double lambda = 0;
  double directions = 1;  // h
  double along = 0;       // z sqrt(4 lambda true + 2 (h - 1) lambda^2) at the end of the interval
  double across = 0;
};

// `twice` is v' V V v. The noisiest directions have the variance `largest`, as far as the traces
// allow it.
Deviations DeviationsOf(const SquaredNorm& norm, double twice, const Traces& traces, double largest,
                        double z) {
  Deviations out;
  const double m0 = norm.observed, m1 = norm.once, mean = m0 > 0 ? m1 / m0 : 0;
  double lambda = std::max(largest, traces.third / traces.second);
  lambda = std::max(std::min(lambda, std::cbrt(traces.third)), mean);
  const double h = std::max(
      std::min(traces.third / (lambda * lambda * lambda), traces.second / (lambda * lambda)), 1.0);
  // Where v lies among the eigenvalues of V is known by m_k = v' V^k v: as if it were at lambda and
  // at one other value, mu.
  double mu = 0, outside = 0;
  const double gap = lambda * m0 - m1;
  if (gap > kNoGap * lambda * m0) {
    const double spread = std::min(std::max(twice - m1 * mean, 0.0), mean * gap);
    mu = std::max(mean - spread / gap, 0.0);
    outside = gap * gap / (gap * gap / m0 + spread);
  }
  const double within = std::max(m0 - outside, 0.0);
  const double effect = std::max(m0 - within - std::max(traces.first - h * lambda, 0.0), 0.0);
  out.lambda = lambda;
  out.directions = h;
  out.along = z * std::sqrt(std::max(4 * lambda * within - 2 * (h - 1) * lambda * lambda, 0.0));
  out.across =
      z * std::sqrt(4 * mu * effect + 2 * std::max(traces.second - h * lambda * lambda, 0.0));
  return out;
}

}  // namespace

CovarianceEstimate EstimateCovariance(std::span<const double> gram, int64_t clusters, int64_t width,
                                      double freedom) {
  const auto size = static_cast<size_t>(clusters);
  VS_CHECK(size > 0 && gram.size() == size * size);
  CovarianceEstimate out = {.width = width, .freedom = freedom};
  for (size_t c = 0; c < size; ++c) out.trace += gram[c * size + c];
  out.trace_of_square = InnerProduct(gram, gram);
  out.trace_of_cube = TraceOfCube(gram, size);
  out.largest_eigenvalue = LargestEigenvalue(gram, size);
  return out;
}

ConfidenceInterval SquaredNormInterval(const SquaredNorm& norm, const CovarianceEstimate& w,
                                       double level) {
  const double n = w.freedom;
  ConfidenceInterval out = {.lower = norm.estimate, .upper = norm.estimate, .level = level};
  if (w.trace <= 0) return out;
  const double z = StudentQuantile((1 + level) / 2, n), one_sided = StudentQuantile(level, n);
  const Traces traces = TracesOf(w);
  double twice = norm.twice, rest = 0;
  if (n > 1) {
    twice = (norm.twice - norm.once * w.trace / n) * n * n / ((n - 1) * (n + 2));
    // By what chance raises the largest eigenvalue (Yata and Aoshima, noise reduction).
    rest = (w.trace - w.largest_eigenvalue) / (n - 1);
  }
  const double square = z * z;

  const Deviations above = DeviationsOf(norm, twice, traces, w.largest_eigenvalue - rest, z);
  out.upper += std::hypot(above.along + (square + 1) * above.lambda, above.across);

  // A noisy direction that looks noisier than it is would bring the lower end too near.
  const Deviations below = DeviationsOf(norm, twice, traces, w.largest_eigenvalue - 2 * rest, z);
  const double up = below.along + (square + 1) * below.lambda;
  const double down = below.along - (square + 1) * below.lambda;
  // Of a direction without an effect: what the level leaves, all at this end where it is alone, as
  // its error cannot go below -lambda.
  const double none =
      below.lambda * std::hypot(square - 1, z * std::sqrt(2 * below.directions - 2));
  // So far as the upper end has to allow for an effect in the noisy direction (1) that is within
  // its noise (2), it is never missed; where others carry the noise (3), the lower end then may be
  // missed as often as a one-sided one.
  const double one_end = up * up / (up * up + below.across * below.across) *  // (1)
                         none / std::max(none, down) *                        // (2)
                         below.across / std::hypot(none, below.across);       // (3)
  out.lower -= std::hypot(std::max(none, down), below.across) * (1 - (1 - one_sided / z) * one_end);
  return out;
}

}  // namespace valuescope::analysis
