// Directions beside one another at one layer: cosines, what they would be without the noise in the
// vectors, and how much of a difference noise alone makes.
//
// A vector v from two halves of the data, A and B with cosine r: what is left of A when it is
// orthogonalised against B, A - <A, B> / |B|^2 B, has the relative norm sqrt(1 - r^2), whatever the
// norms. Both halves estimate one direction, so that is noise alone, and a "unique" part of two
// such halves is none until it is larger.
#ifndef VALUESCOPE_ANALYSIS_VECTOR_COSINES_H_
#define VALUESCOPE_ANALYSIS_VECTOR_COSINES_H_

#include <optional>
#include <span>
#include <vector>

namespace valuescope::analysis {

struct ComparedRow {
  std::span<const float> row;               // [width], finite
  std::optional<double> split_half_cosine;  // r
  std::optional<double> reliability;        // 2 r / (1 + r)
};

struct RowComparison {
  std::optional<double> cosine;  // -1 .. 1; absent for a zero row
  std::optional<double> disattenuated_cosine;
  std::optional<double> noise_floor;  // of the first row
};

// cosine / sqrt(R_first R_second), which may exceed 1; absent unless both are there and positive.
std::optional<double> Disattenuated(double cosine, std::optional<double> first_reliability,
                                    std::optional<double> second_reliability);

// sqrt(1 - r^2), 0 .. 1. Absent without r and below r = 0, where the halves point apart: they do
// not estimate one direction, and the less they agreed, the smaller the floor would be.
std::optional<double> NoiseFloor(std::optional<double> split_half_cosine);

// Every pair first < second: (0, 1), (0, 2), ... (1, 2), ... Rows have one width.
std::vector<RowComparison> CompareRows(std::span<const ComparedRow> rows);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_VECTOR_COSINES_H_
