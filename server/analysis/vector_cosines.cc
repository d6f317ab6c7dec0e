#include "analysis/vector_cosines.h"

#include <algorithm>
#include <cmath>

#include "analysis/inner_product.h"

namespace valuescope::analysis {

std::optional<double> Disattenuated(double cosine, std::optional<double> first_reliability,
                                    std::optional<double> second_reliability) {
  if (first_reliability.value_or(0) <= 0 || second_reliability.value_or(0) <= 0) {
    return std::nullopt;
  }
  return cosine / std::sqrt(*first_reliability * *second_reliability);
}

std::optional<double> NoiseFloor(std::optional<double> split_half_cosine) {
  if (!split_half_cosine || *split_half_cosine < 0) return std::nullopt;
  const double r = std::min(1.0, *split_half_cosine);
  return std::sqrt((1 - r) * (1 + r));
}

std::vector<RowComparison> CompareRows(std::span<const ComparedRow> rows) {
  std::vector<double> norms;
  for (const ComparedRow& row : rows) norms.push_back(Norm(row.row));
  std::vector<RowComparison> comparisons;
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t j = i + 1; j < rows.size(); ++j) {
      RowComparison& one = comparisons.emplace_back();
      one.noise_floor = NoiseFloor(rows[i].split_half_cosine);
      if (norms[i] == 0 || norms[j] == 0) continue;
      const double inner_product = InnerProduct(rows[i].row, rows[j].row);
      one.cosine = std::clamp(inner_product / (norms[i] * norms[j]), -1.0, 1.0);
      one.disattenuated_cosine =
          Disattenuated(*one.cosine, rows[i].reliability, rows[j].reliability);
    }
  }
  return comparisons;
}

}  // namespace valuescope::analysis
