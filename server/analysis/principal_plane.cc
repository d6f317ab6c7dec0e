#include "analysis/principal_plane.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace valuescope::analysis {
namespace {

// Squares of the elements beside the diagonal.
double OffDiagonal(const SmallMatrix& matrix) {
  double sum = 0;
  for (size_t i = 0; i < matrix.size(); ++i) {
    for (size_t j = i + 1; j < matrix.size(); ++j) sum += matrix.at(i, j) * matrix.at(i, j);
  }
  return sum;
}

double Trace(const SmallMatrix& matrix) {
  double sum = 0;
  for (size_t i = 0; i < matrix.size(); ++i) sum += matrix.at(i, i);
  return sum;
}

struct Rotation {
  double cosine, sine;
};

// Turns the plane of axes p and q until matrix[p][q] is 0 (Golub and Van Loan, Matrix
// Computations, 8.5.2: the smaller of the two angles).
Rotation Annihilating(const SmallMatrix& matrix, size_t p, size_t q) {
  const double tau = (matrix.at(q, q) - matrix.at(p, p)) / (2 * matrix.at(p, q));
  const double tangent = std::copysign(1.0, tau) / (std::fabs(tau) + std::hypot(1.0, tau));
  const double cosine = 1 / std::sqrt(1 + tangent * tangent);
  return {.cosine = cosine, .sine = tangent * cosine};
}

void RotateColumns(SmallMatrix& matrix, size_t p, size_t q, const Rotation& by) {
  for (size_t i = 0; i < matrix.size(); ++i) {
    const double at_p = matrix.at(i, p), at_q = matrix.at(i, q);
    matrix.at(i, p) = by.cosine * at_p - by.sine * at_q;
    matrix.at(i, q) = by.sine * at_p + by.cosine * at_q;
  }
}

void RotateRows(SmallMatrix& matrix, size_t p, size_t q, const Rotation& by) {
  for (size_t i = 0; i < matrix.size(); ++i) {
    const double at_p = matrix.at(p, i), at_q = matrix.at(q, i);
    matrix.at(p, i) = by.cosine * at_p - by.sine * at_q;
    matrix.at(q, i) = by.sine * at_p + by.cosine * at_q;
  }
}

}  // namespace

void Centre(SmallMatrix& gram) {
  const size_t n = gram.size();
  std::array<double, SmallMatrix::kMostRows> means{};
  double mean = 0;
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) means[i] += gram.at(i, j) / static_cast<double>(n);
    mean += means[i] / static_cast<double>(n);
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) gram.at(i, j) += mean - means[i] - means[j];
  }
}

Eigenvectors EigenvectorsOf(SmallMatrix symmetric) {
  const size_t n = symmetric.size();
  VS_CHECK(n >= 1 && n <= SmallMatrix::kMostRows);
  SmallMatrix vectors(n);
  for (size_t i = 0; i < n; ++i) vectors.at(i, i) = 1;
  // Converges quadratically: far fewer sweeps than these do.
  constexpr int kMostSweeps = 50;
  const double scale = Trace(symmetric);
  for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
    if (OffDiagonal(symmetric) <= 1e-32 * scale * scale) break;
    for (size_t p = 0; p < n; ++p) {
      for (size_t q = p + 1; q < n; ++q) {
        if (symmetric.at(p, q) == 0) continue;
        const Rotation by = Annihilating(symmetric, p, q);
        RotateColumns(symmetric, p, q, by);
        RotateRows(symmetric, p, q, by);
        symmetric.at(p, q) = symmetric.at(q, p) = 0;  // but for rounding
        RotateColumns(vectors, p, q, by);
      }
    }
  }
  std::array<size_t, SmallMatrix::kMostRows> order{};
  std::iota(order.begin(), order.begin() + n, size_t{0});
  std::stable_sort(order.begin(), order.begin() + n,
                   [&](size_t a, size_t b) { return symmetric.at(a, a) > symmetric.at(b, b); });
  Eigenvectors out{.values = {}, .vectors = SmallMatrix(n)};
  for (size_t i = 0; i < n; ++i) {
    out.values[i] = symmetric.at(order[i], order[i]);
    for (size_t row = 0; row < n; ++row) out.vectors.at(row, i) = vectors.at(row, order[i]);
  }
  return out;
}

PrincipalPlane PrincipalPlaneOf(const SmallMatrix& centred) {
  const Eigenvectors eigen = EigenvectorsOf(centred);
  PrincipalPlane plane;
  plane.total_variance = Trace(centred);
  for (size_t axis = 0; axis < std::min<size_t>(3, centred.size()); ++axis) {
    // The root of what rounding makes of 0 would be no rounding any more.
    constexpr double kRounding = 1e-14;
    const double variance = eigen.values[axis];
    plane.variances[axis] = variance <= kRounding * plane.total_variance ? 0 : variance;
  }
  for (size_t axis = 0; axis < 2; ++axis) {
    const double length = std::sqrt(plane.variances[axis]);
    for (size_t i = 0; i < centred.size(); ++i) {
      plane.points[i][axis] = length * eigen.vectors.at(i, axis);
    }
  }
  return plane;
}

}  // namespace valuescope::analysis
