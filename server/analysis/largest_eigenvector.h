// The eigenvector of the largest eigenvalue of a symmetric matrix without negative ones, which is
// known by what it does to vectors: Lanczos with full reorthogonalisation, so that the matrix is
// never formed and rounding does not bring found directions back.
#ifndef VALUESCOPE_ANALYSIS_LARGEST_EIGENVECTOR_H_
#define VALUESCOPE_ANALYSIS_LARGEST_EIGENVECTOR_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cancellation.h"

namespace valuescope::analysis {

// Vectors that are kept at most, and so products with the matrix.
inline constexpr int64_t kMostLanczosVectors = 512;

struct Eigenpair {
  double value = 0;
  std::vector<double> vector;  // [size], unit
  // Whether |A u - value u| is below 1e-13 value. A matrix of more than kMostLanczosVectors rows
  // may not get there: its first eigenvalues are then nearly equal, and u is among their vectors.
  bool settled = false;
};

// [size] -> [size], the matrix times a vector.
using MatrixAction = std::function<std::vector<double>(std::span<const double>)>;

// size >= 1; the matrix is not zero. CANCELLED soon after `cancellation` is raised. Deterministic.
// Keeps at most kMostLanczosVectors x size numbers.
absl::StatusOr<Eigenpair> LargestEigenpair(int64_t size, const MatrixAction& multiply,
                                           const Cancellation& cancellation);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_LARGEST_EIGENVECTOR_H_
