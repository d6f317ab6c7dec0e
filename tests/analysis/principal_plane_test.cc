#include "analysis/principal_plane.h"

#include <cmath>

#include "tests/analysis/expected_values.h"

namespace valuescope::analysis {
namespace {

SmallMatrix RandomGram(size_t size, uint64_t seed) {
  const std::vector<float> rows = RandomNormal(static_cast<int64_t>(size * size), seed);
  SmallMatrix gram(size);
  for (size_t i = 0; i < size; ++i) {
    for (size_t j = 0; j < size; ++j) {
      for (size_t k = 0; k < size; ++k) {
        gram.at(i, j) += static_cast<double>(rows[i * size + k]) * rows[j * size + k];
      }
    }
  }
  return gram;
}

TEST(Eigenvectors, AreOrthonormalAndMakeTheMatrixAgain) {
  for (const size_t size : {size_t{1}, size_t{2}, size_t{7}, SmallMatrix::kMostRows}) {
    const SmallMatrix matrix = RandomGram(size, size);
    const Eigenvectors eigen = EigenvectorsOf(matrix);
    for (size_t i = 0; i < size; ++i) {
      if (i > 0) EXPECT_GE(eigen.values[i - 1], eigen.values[i]);
      for (size_t j = 0; j < size; ++j) {
        double again = 0, product = 0;
        for (size_t k = 0; k < size; ++k) {
          again += eigen.vectors.at(i, k) * eigen.values[k] * eigen.vectors.at(j, k);
          product += eigen.vectors.at(k, i) * eigen.vectors.at(k, j);
        }
        EXPECT_NEAR(again, matrix.at(i, j), 1e-13 * eigen.values[0]);
        EXPECT_NEAR(product, i == j, 1e-13);
      }
    }
  }
}

TEST(Eigenvectors, OfTwoRowsHaveAClosedForm) {
  SmallMatrix matrix(2);
  matrix.at(0, 0) = 5;
  matrix.at(1, 1) = 2;
  matrix.at(0, 1) = matrix.at(1, 0) = 2;
  const Eigenvectors eigen = EigenvectorsOf(matrix);
  EXPECT_NEAR(eigen.values[0], 6, 1e-14);
  EXPECT_NEAR(eigen.values[1], 1, 1e-14);
  EXPECT_NEAR(std::fabs(eigen.vectors.at(0, 0)), 2 / std::sqrt(5.0), 1e-14);
}

// A rectangle of 6 by 2 about any centre, in three dimensions: its sides are its components.
TEST(PrincipalPlane, OfARectangleIsTheRectangle) {
  const double corners[4][3] = {{4, 7, 1}, {10, 7, 1}, {10, 9, 1}, {4, 9, 1}};
  SmallMatrix gram(4);
  for (size_t i = 0; i < 4; ++i) {
    for (size_t j = 0; j < 4; ++j) {
      for (size_t k = 0; k < 3; ++k) gram.at(i, j) += corners[i][k] * corners[j][k];
    }
  }
  Centre(gram);
  const PrincipalPlane plane = PrincipalPlaneOf(gram);
  EXPECT_NEAR(plane.variances[0], 36, 1e-12);
  EXPECT_NEAR(plane.variances[1], 4, 1e-12);
  EXPECT_NEAR(plane.variances[2], 0, 1e-12);
  EXPECT_NEAR(plane.total_variance, 40, 1e-12);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(std::fabs(plane.points[i][0]), 3, 1e-12);
    EXPECT_NEAR(std::fabs(plane.points[i][1]), 1, 1e-12);
  }
}

TEST(PrincipalPlane, OfPointsThatAreAllOneHasNoVariance) {
  SmallMatrix gram(3);
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) gram.at(i, j) = 1;
  }
  Centre(gram);
  const PrincipalPlane plane = PrincipalPlaneOf(gram);
  EXPECT_NEAR(plane.total_variance, 0, 1e-15);
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(plane.points[i][0], 0, 1e-7);
}

}  // namespace
}  // namespace valuescope::analysis
