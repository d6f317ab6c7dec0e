#include "studies/summed_means.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/check.h"
#include "base/number_bytes.h"
#include "base/status_macros.h"
#include "jobs/work.h"

namespace valuescope::studies {
namespace {

constexpr absl::string_view kMagic = "VSSUMMED";
constexpr int64_t kVersion = 1;

}  // namespace

absl::StatusOr<SummedMeans> SummedMeans::Begin(engine::Engine& engine, const MeansShape& shape,
                                               bool weigh_by_tokens) {
  SummedMeans sums;
  sums.shape_ = shape;
  sums.weigh_by_tokens_ = weigh_by_tokens;
  VS_ASSIGN_OR_RETURN(sums.memory_, engine.KeepCaptures(Bytes(shape, weigh_by_tokens)));
  sums.layers_.assign(static_cast<size_t>(shape.rows),
                      analysis::LayerSums(shape.width, weigh_by_tokens));
  return sums;
}

int64_t SummedMeans::Bytes(const MeansShape& shape, bool weigh_by_tokens) {
  return static_cast<int64_t>(kMagic.size() + 2 * sizeof(int64_t)) +
         shape.rows * analysis::LayerSums::SerializedBytes(shape.width, weigh_by_tokens);
}

absl::Status SummedMeans::Add(const Place& place, std::span<const float> mean) {
  VS_CHECK(static_cast<int64_t>(mean.size()) == shape_.elements());
  const auto width = static_cast<size_t>(shape_.width);
  const std::span<const float> norms = mean.subspan(static_cast<size_t>(shape_.rows) * width);
  std::vector<double> row(width);
  for (size_t r = 0; r < layers_.size(); ++r) {
    std::copy_n(mean.begin() + static_cast<std::ptrdiff_t>(r * width), width, row.begin());
    VS_RETURN_IF_ERROR(layers_[r].Add(row, place.half, place.label, place.weight));
    // One token's norm is that of its row.
    layers_[r].token_norms += norms.empty() ? analysis::Norm(row) : place.tokens * norms[r];
  }
  ++count_;
  return absl::OkStatus();
}

absl::Status SummedMeans::Add(const SummedMeans& others) {
  VS_CHECK(others.shape_ == shape_);
  for (size_t r = 0; r < layers_.size(); ++r) {
    VS_RETURN_IF_ERROR(layers_[r].Merge(others.layers_[r]));
  }
  count_ += others.count_;
  return absl::OkStatus();
}

std::string SummedMeans::Serialize() const {
  std::string bytes(kMagic);
  bytes.reserve(static_cast<size_t>(Bytes(shape_, weigh_by_tokens_)));
  const int64_t head[] = {kVersion, count_};
  absl::StrAppend(&bytes, BytesOfNumbers(head));
  for (const analysis::LayerSums& layer : layers_) layer.AppendTo(bytes);
  return bytes;
}

absl::StatusOr<SummedMeans> SummedMeans::Parse(engine::Engine& engine, absl::string_view bytes,
                                               int64_t most, const MeansShape& shape,
                                               bool weigh_by_tokens) {
  if (static_cast<int64_t>(bytes.size()) != Bytes(shape, weigh_by_tokens))
    return jobs::PartialDamaged();
  if (bytes.substr(0, kMagic.size()) != kMagic) return jobs::PartialDamaged();
  int64_t head[2];
  bytes.remove_prefix(kMagic.size());
  TakeNumbers(bytes, head);
  if (head[0] != kVersion || head[1] < 0 || head[1] > most) return jobs::PartialDamaged();
  VS_ASSIGN_OR_RETURN(SummedMeans sums, Begin(engine, shape, weigh_by_tokens));
  const auto size = bytes.size() / sums.layers_.size();
  for (size_t r = 0; r < sums.layers_.size(); ++r) {
    VS_ASSIGN_OR_RETURN(sums.layers_[r], analysis::LayerSums::Parse(bytes.substr(r * size, size),
                                                                    shape.width, weigh_by_tokens));
  }
  sums.count_ = head[1];
  return sums;
}

}  // namespace valuescope::studies
