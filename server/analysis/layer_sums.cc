#include "analysis/layer_sums.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/number_bytes.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

absl::Status Damaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "DAMAGED_SUMS",
                         "stored sums of responses cannot be used");
}

void Append(std::span<const double> numbers, std::string& out) {
  absl::StrAppend(&out, BytesOfNumbers(numbers));
}

absl::Status Take(absl::string_view& bytes, std::span<double> numbers) {
  TakeNumbers(bytes, numbers);
  return AllFinite(std::span<const double>(numbers)) ? absl::OkStatus() : Damaged();
}

}  // namespace

absl::Status LabelSums::Add(std::span<const double> row, double row_weight) {
  VS_RETURN_IF_ERROR(moments.Add(row));
  weight += row_weight;
  for (size_t i = 0; i < weighted.size(); ++i) weighted[i] += row_weight * row[i];
  return absl::OkStatus();
}

absl::Status LabelSums::Merge(const LabelSums& other) {
  VS_RETURN_IF_ERROR(moments.Merge(other.moments));
  weight += other.weight;
  for (size_t i = 0; i < weighted.size(); ++i) weighted[i] += other.weighted[i];
  return absl::OkStatus();
}

std::vector<double> LabelSums::Mean() const {
  std::vector<double> mean(moments.mean().begin(), moments.mean().end());
  for (size_t i = 0; i < weighted.size(); ++i) mean[i] = weighted[i] / weight;
  return mean;
}

LayerSums::LayerSums(int64_t width, bool weigh_by_tokens) {
  LabelSums none = {.moments = VectorMoments(width), .weighted = {}};
  if (weigh_by_tokens) none.weighted.assign(width, 0.0);
  for (auto& half : of) half.fill(none);
}

absl::StatusOr<LabelSums> LayerSums::OfLabel(int label) const {
  LabelSums sums = of[0][label];
  VS_RETURN_IF_ERROR(sums.Merge(of[1][label]));
  return sums;
}

absl::Status LayerSums::Add(std::span<const double> row, int half, int label, double weight) {
  VS_RETURN_IF_ERROR(of[half][label].Add(row, weight));
  response_norms += Norm(row);
  return absl::OkStatus();
}

absl::Status LayerSums::Merge(const LayerSums& other) {
  for (const int half : {0, 1}) {
    for (const int label : {0, 1}) {
      VS_RETURN_IF_ERROR(of[half][label].Merge(other.of[half][label]));
    }
  }
  response_norms += other.response_norms;
  token_norms += other.token_norms;
  return absl::OkStatus();
}

int64_t LayerSums::SerializedBytes(int64_t width, bool weigh_by_tokens) {
  constexpr int64_t kDouble = sizeof(double);
  const int64_t label =
      VectorMoments::SerializedBytes(width) + kDouble * (1 + (weigh_by_tokens ? width : 0));
  return 4 * label + 2 * kDouble;
}

void LayerSums::AppendTo(std::string& out) const {
  for (const auto& half : of) {
    for (const LabelSums& sums : half) {
      out += sums.moments.Serialize();
      Append({&sums.weight, 1}, out);
      Append(sums.weighted, out);
    }
  }
  Append({&response_norms, 1}, out);
  Append({&token_norms, 1}, out);
}

absl::StatusOr<LayerSums> LayerSums::Parse(absl::string_view bytes, int64_t width,
                                           bool weigh_by_tokens) {
  if (static_cast<int64_t>(bytes.size()) != SerializedBytes(width, weigh_by_tokens)) {
    return Damaged();
  }
  LayerSums out(width, weigh_by_tokens);
  const auto moments = static_cast<size_t>(VectorMoments::SerializedBytes(width));
  for (auto& half : out.of) {
    for (LabelSums& sums : half) {
      VS_ASSIGN_OR_RETURN(sums.moments, VectorMoments::Parse(bytes.substr(0, moments), width));
      bytes.remove_prefix(moments);
      VS_RETURN_IF_ERROR(Take(bytes, {&sums.weight, 1}));
      VS_RETURN_IF_ERROR(Take(bytes, sums.weighted));
    }
  }
  VS_RETURN_IF_ERROR(Take(bytes, {&out.response_norms, 1}));
  VS_RETURN_IF_ERROR(Take(bytes, {&out.token_norms, 1}));
  return out;
}

}  // namespace valuescope::analysis
