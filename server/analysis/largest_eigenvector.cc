#include "analysis/largest_eigenvector.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "analysis/extraction.h"
#include "analysis/inner_product.h"

namespace valuescope::analysis {
namespace {

constexpr double kSettled = 1e-13;    // residual relative to the eigenvalue
constexpr double kExhausted = 1e-13;  // what is left of a new vector where nothing is left
// Steps between looks at the eigenvalue, which cost less than a product with the matrix.
constexpr int64_t kStepsBetweenLooks = 4;
constexpr int kBisections = 200;  // at most; they end where no number lies between the bounds

void Normalise(std::vector<double>& vector) {
  const double norm = Norm(vector);
  for (double& element : vector) element /= norm;
}

// The symmetric tridiagonal matrix that the given one is on the kept vectors.
struct Tridiagonal {
  std::vector<double> diagonal;  // [k]
  std::vector<double> beside;    // [k - 1], positive

  // Whether no eigenvalue lies above x: all pivots of T - x are negative.
  bool AllBelow(double x) const {
    double pivot = -1;
    for (size_t i = 0; i < diagonal.size(); ++i) {
      pivot = diagonal[i] - x - (i > 0 ? beside[i - 1] * beside[i - 1] / pivot : 0);
      if (pivot >= 0) return false;
    }
    return true;
  }

  // The least number that this holds for.
  double LargestEigenvalue() const {
    double low = 0, high = 0;  // Gershgorin's circles
    for (size_t i = 0; i < diagonal.size(); ++i) {
      const double left = i > 0 ? beside[i - 1] : 0, right = i < beside.size() ? beside[i] : 0;
      high = std::max(high, diagonal[i] + left + right);
    }
    high = high * (1 + 1e-12) + 1e-300;
    for (int i = 0; i < kBisections; ++i) {
      const double middle = low + (high - low) / 2;
      if (middle <= low || middle >= high) break;
      (AllBelow(middle) ? high : low) = middle;
    }
    return high;
  }

  // Unit eigenvector of that value, by the factors of T - value from either end, which meet where
  // they say that the vector is largest: from one end alone small elements would be noise.
  std::vector<double> EigenvectorOf(double value) const {
    const size_t size = diagonal.size();
    std::vector<double> down(size), up(size);  // pivots
    for (size_t i = 0; i < size; ++i) {
      down[i] = diagonal[i] - value - (i > 0 ? beside[i - 1] * beside[i - 1] / down[i - 1] : 0);
    }
    for (size_t i = size; i-- > 0;) {
      up[i] = diagonal[i] - value - (i + 1 < size ? beside[i] * beside[i] / up[i + 1] : 0);
    }
    const auto meeting = [&](size_t i) {
      return std::abs(down[i] + up[i] - (diagonal[i] - value));
    };
    size_t largest = 0;
    for (size_t i = 1; i < size; ++i) {
      if (meeting(i) < meeting(largest)) largest = i;
    }
    std::vector<double> vector(size);
    vector[largest] = 1;
    for (size_t i = largest; i-- > 0;) vector[i] = -beside[i] * vector[i + 1] / down[i];
    for (size_t i = largest + 1; i < size; ++i) vector[i] = -beside[i - 1] * vector[i - 1] / up[i];
    Normalise(vector);
    return vector;
  }
};

// Takes from `vector` what lies along the kept ones; twice is enough.
void Orthogonalise(const std::vector<std::vector<double>>& kept, std::span<double> vector) {
  for (int pass = 0; pass < 2; ++pass) {
    for (const std::vector<double>& one : kept) AddScaled(one, -InnerProduct(one, vector), vector);
  }
}

// Some direction that has a part along any eigenvector. Bits of the generator are the same
// everywhere, those of the library's distributions are not.
std::vector<double> Start(int64_t size) {
  std::mt19937_64 random(1);
  std::vector<double> start(size);
  for (double& element : start) element = std::ldexp(static_cast<double>(random() >> 11), -53) - .5;
  return start;
}

}  // namespace

absl::StatusOr<Eigenpair> LargestEigenpair(int64_t size, const MatrixAction& multiply,
                                           const Cancellation& cancellation) {
  const int64_t most = std::min(size, kMostLanczosVectors);
  std::vector<std::vector<double>> kept(1, Start(size));
  Normalise(kept[0]);
  Tridiagonal tridiagonal;
  Eigenpair found;
  std::vector<double> in_kept;
  while (true) {
    if (cancellation.cancelled()) return ExtractionCancelled();
    std::vector<double> next = multiply(kept.back());
    const double length = Norm(next);
    tridiagonal.diagonal.push_back(InnerProduct(kept.back(), next));
    Orthogonalise(kept, next);
    const double left = Norm(next);
    const auto count = static_cast<int64_t>(kept.size());
    const bool exhausted = count == size || left <= kExhausted * length;
    if (exhausted || count == most || count % kStepsBetweenLooks == 0) {
      found.value = tridiagonal.LargestEigenvalue();
      in_kept = tridiagonal.EigenvectorOf(found.value);
      found.settled = exhausted || left * std::abs(in_kept.back()) <= kSettled * found.value;
      if (found.settled || count == most) break;
    }
    tridiagonal.beside.push_back(left);
    Normalise(next);
    kept.push_back(std::move(next));
  }
  found.vector.assign(size, 0.0);
  for (size_t i = 0; i < in_kept.size(); ++i) AddScaled(kept[i], in_kept[i], found.vector);
  Normalise(found.vector);
  return found;
}

}  // namespace valuescope::analysis
