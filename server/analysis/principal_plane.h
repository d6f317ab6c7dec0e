// The plane in which a few points lie most nearly: principal component analysis from the inner
// products of the points alone, so that it costs the same however many dimensions they have.
//
// With X the centred points [n, width], the left singular vectors of X are the eigenvectors of the
// n x n matrix X X^T, whose eigenvalues are the squared singular values: an eigenvector times the
// root of its eigenvalue has the points' coordinates along one principal axis. Jacobi's rotations
// find all of them to rounding.
#ifndef VALUESCOPE_ANALYSIS_PRINCIPAL_PLANE_H_
#define VALUESCOPE_ANALYSIS_PRINCIPAL_PLANE_H_

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace valuescope::analysis {

// A symmetric matrix of few rows, row-major [size, size].
class SmallMatrix {
 public:
  static constexpr size_t kMostRows = 16;

  explicit SmallMatrix(size_t size) : size_(size) {}

  size_t size() const { return size_; }
  double& at(size_t row, size_t column) { return elements_[row * kMostRows + column]; }
  double at(size_t row, size_t column) const { return elements_[row * kMostRows + column]; }

 private:
  size_t size_;
  std::array<double, kMostRows * kMostRows> elements_{};
};

// Makes inner products of points those of the points less their mean.
void Centre(SmallMatrix& gram);

struct Eigenvectors {
  std::array<double, SmallMatrix::kMostRows> values{};  // [size], descending
  SmallMatrix vectors;                                  // column i belongs to values[i], unit
};

Eigenvectors EigenvectorsOf(SmallMatrix symmetric);

struct PrincipalPlane {
  std::array<std::array<double, 2>, SmallMatrix::kMostRows> points{};  // [size], mean 0
  std::array<double, 3> variances{};  // squared singular values of the first three components
  double total_variance = 0;          // of all components
};

// `centred` are the inner products of 2 to kMostRows points whose mean is 0.
PrincipalPlane PrincipalPlaneOf(const SmallMatrix& centred);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_PRINCIPAL_PLANE_H_
