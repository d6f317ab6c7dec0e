#include "studies/kept_means.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/number_bytes.h"
#include "base/status_macros.h"
#include "jobs/work.h"

namespace valuescope::studies {
namespace {

constexpr char kMeansMagic[] = "VSRMEANS";  // eight characters
constexpr size_t kMeansMagicSize = 8;
constexpr int64_t kMeansVersion = 1;
constexpr int64_t kFloatBytes = sizeof(float);

int64_t NormsOf(const MeansShape& shape) { return shape.token_norms ? shape.rows : 0; }

}  // namespace

absl::StatusOr<KeptMeans> KeptMeans::WithRoom(engine::Engine& engine, int64_t responses,
                                              const MeansShape& shape, int64_t numbers) {
  KeptMeans means;
  means.shape_ = shape;
  means.most_ = responses;
  VS_ASSIGN_OR_RETURN(means.memory_, engine.KeepCaptures(numbers * kFloatBytes));
  means.numbers_.reserve(static_cast<size_t>(numbers));
  return means;
}

absl::StatusOr<KeptMeans> KeptMeans::Begin(engine::Engine& engine, int64_t responses,
                                           const MeansShape& shape) {
  return WithRoom(engine, responses, shape, responses * shape.elements());
}

absl::StatusOr<KeptMeans> KeptMeans::BeginAside(engine::Engine& engine, store::BlobStore& blobs,
                                                int64_t responses, const MeansShape& shape) {
  VS_ASSIGN_OR_RETURN(KeptMeans means,
                      WithRoom(engine, responses, shape, responses * NormsOf(shape)));
  VS_ASSIGN_OR_RETURN(means.aside_, blobs.NewScratchFile());
  return means;
}

int64_t KeptMeans::BytesInMemory(int64_t responses, const MeansShape& shape) {
  return responses * NormsOf(shape) * kFloatBytes;
}

int64_t KeptMeans::BytesAside(int64_t responses, const MeansShape& shape) {
  return responses * shape.rows * shape.width * kFloatBytes;
}

std::span<const float> KeptMeans::token_norms(int64_t response) const {
  const int64_t norms = NormsOf(shape_);
  const int64_t begin =
      aside_ != nullptr ? response * norms : (response + 1) * shape_.elements() - norms;
  return std::span<const float>(numbers_).subspan(static_cast<size_t>(begin),
                                                  static_cast<size_t>(norms));
}

absl::Status KeptMeans::Read(int64_t response, int64_t row, int64_t begin,
                             std::span<float> out) const {
  VS_CHECK(response < count_ && row < shape_.rows);
  if (aside_ != nullptr) {
    const int64_t offset = (row * most_ + response) * shape_.width + begin;
    return aside_->Read(offset * kFloatBytes,
                        {reinterpret_cast<char*>(out.data()), out.size_bytes()});
  }
  const int64_t first = response * shape_.elements() + row * shape_.width + begin;
  std::copy_n(numbers_.begin() + first, out.size(), out.begin());
  return absl::OkStatus();
}

void KeptMeans::Add(std::span<const float> mean) {
  VS_CHECK(aside_ == nullptr && static_cast<int64_t>(mean.size()) == shape_.elements());
  numbers_.insert(numbers_.end(), mean.begin(), mean.end());
  ++count_;
}

absl::Status KeptMeans::Add(const KeptMeans& others) {
  VS_CHECK(others.shape_ == shape_ && others.aside_ == nullptr);
  if (aside_ == nullptr) {
    numbers_.insert(numbers_.end(), others.numbers_.begin(), others.numbers_.end());
    count_ += others.count_;
    return absl::OkStatus();
  }
  std::vector<float> of_row(static_cast<size_t>(others.count_ * shape_.width));
  for (int64_t row = 0; row < shape_.rows; ++row) {
    for (int64_t i = 0; i < others.count_; ++i) {
      VS_RETURN_IF_ERROR(
          others.Read(i, row, /*begin=*/0,
                      std::span<float>(of_row).subspan(static_cast<size_t>(i * shape_.width),
                                                       static_cast<size_t>(shape_.width))));
    }
    const int64_t offset = (row * most_ + count_) * shape_.width;
    VS_RETURN_IF_ERROR(aside_->Write(offset * kFloatBytes, BytesOfNumbers(of_row)));
  }
  for (int64_t i = 0; i < others.count_; ++i) {
    const std::span<const float> norms = others.token_norms(i);
    numbers_.insert(numbers_.end(), norms.begin(), norms.end());
  }
  count_ += others.count_;
  return absl::OkStatus();
}

std::string KeptMeans::Serialize() const {
  VS_CHECK(aside_ == nullptr);
  const int64_t head[] = {kMeansVersion, shape_.elements(), count_};
  return absl::StrCat(absl::string_view(kMeansMagic, kMeansMagicSize), BytesOfNumbers(head),
                      BytesOfNumbers(numbers_));
}

absl::StatusOr<KeptMeans> KeptMeans::Parse(engine::Engine& engine, absl::string_view bytes,
                                           int64_t done, int64_t responses,
                                           const MeansShape& shape) {
  int64_t head[3];
  const auto numbers = static_cast<size_t>(done * shape.elements());
  if (bytes.size() != kMeansMagicSize + sizeof(head) + numbers * sizeof(float))
    return jobs::PartialDamaged();
  if (bytes.substr(0, kMeansMagicSize) != absl::string_view(kMeansMagic, kMeansMagicSize))
    return jobs::PartialDamaged();
  bytes.remove_prefix(kMeansMagicSize);
  TakeNumbers(bytes, head);
  if (head[0] != kMeansVersion || head[1] != shape.elements() || head[2] != done)
    return jobs::PartialDamaged();
  VS_ASSIGN_OR_RETURN(KeptMeans means, Begin(engine, responses, shape));
  means.numbers_.resize(numbers);
  TakeNumbers(bytes, means.numbers_);
  means.count_ = done;
  return means;
}

}  // namespace valuescope::studies
