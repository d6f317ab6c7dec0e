// Inner products and norms of float32 or float64 vectors, accumulated in float64 from the first
// element to the last, so that equal inputs give equal bits.
#ifndef VALUESCOPE_ANALYSIS_INNER_PRODUCT_H_
#define VALUESCOPE_ANALYSIS_INNER_PRODUCT_H_

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "base/check.h"

namespace valuescope::analysis {

// sum_i a_i b_i; both [width].
template <typename A, typename B>
double InnerProduct(const A& a, const B& b) {
  VS_CHECK(a.size() == b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// Euclidean length of a [width].
template <typename A>
double Norm(const A& a) {
  return std::sqrt(InnerProduct(a, a));
}

// Adds `factor` times `from` to `to`, both [width].
inline void AddScaled(std::span<const double> from, double factor, std::span<double> to) {
  VS_CHECK(from.size() == to.size());
  for (size_t i = 0; i < to.size(); ++i) to[i] += factor * from[i];
}

// Rows of `matrix` [rows, width] times `vector` [width]: [rows].
inline std::vector<double> MatrixProduct(std::span<const double> matrix,
                                         std::span<const double> vector) {
  VS_CHECK(!vector.empty() && matrix.size() % vector.size() == 0);
  std::vector<double> out(matrix.size() / vector.size());
  for (size_t row = 0; row < out.size(); ++row) {
    out[row] = InnerProduct(matrix.subspan(row * vector.size(), vector.size()), vector);
  }
  return out;
}

// Whether no element is NaN or infinite.
template <typename A>
bool AllFinite(const A& a) {
  for (const auto element : a) {
    if (!std::isfinite(element)) return false;
  }
  return true;
}

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_INNER_PRODUCT_H_
