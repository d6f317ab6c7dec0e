#include "analysis/moments.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "analysis/inner_product.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::analysis {
namespace {

constexpr absl::string_view kMagic = "VSMOMENT";
constexpr uint64_t kVersion = 1;
constexpr size_t kHeaderBytes = 8 + 3 * sizeof(uint64_t);

void AppendLittleEndian(uint64_t value, std::string& out) {
  for (int shift = 0; shift < 64; shift += 8) out.push_back(static_cast<char>(value >> shift));
}

uint64_t ReadLittleEndian(absl::string_view bytes, size_t offset) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(value); ++i) {
    value |= static_cast<uint64_t>(static_cast<unsigned char>(bytes[offset + i])) << (8 * i);
  }
  return value;
}

absl::Status Damaged(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "DAMAGED_MOMENTS",
                         absl::StrCat("stored moments cannot be used: ", what));
}

}  // namespace

VectorMoments::VectorMoments(int64_t width) {
  VS_CHECK(width >= 0);
  mean_.assign(width, 0.0);
  squared_deviations_.assign(width, 0.0);
}

template <typename T>
absl::Status VectorMoments::AddObservation(std::span<const T> observation) {
  if (observation.size() != mean_.size()) {
    return InvalidField("observation", absl::StrCat("has ", observation.size(),
                                                    " elements, must have ", mean_.size()));
  }
  if (!AllFinite(observation)) {
    return InvalidField("observation", "must be finite", "NOT_FINITE");
  }
  ++count_;
  for (size_t i = 0; i < mean_.size(); ++i) {
    const double value = observation[i];
    const double delta = value - mean_[i];
    mean_[i] += delta / static_cast<double>(count_);
    squared_deviations_[i] += delta * (value - mean_[i]);
  }
  return absl::OkStatus();
}

absl::Status VectorMoments::Add(std::span<const float> observation) {
  return AddObservation(observation);
}

absl::Status VectorMoments::Add(std::span<const double> observation) {
  return AddObservation(observation);
}

absl::Status VectorMoments::Merge(const VectorMoments& other) {
  if (other.mean_.size() != mean_.size()) {
    return InvalidField("moments", absl::StrCat("have width ", other.mean_.size(),
                                                ", must have width ", mean_.size()));
  }
  if (other.count_ == 0) return absl::OkStatus();
  if (count_ == 0) {
    *this = other;
    return absl::OkStatus();
  }
  const double n_a = static_cast<double>(count_);
  const double n_b = static_cast<double>(other.count_);
  const double n = n_a + n_b;
  for (size_t i = 0; i < mean_.size(); ++i) {
    const double delta = other.mean_[i] - mean_[i];
    mean_[i] += delta * n_b / n;
    squared_deviations_[i] += other.squared_deviations_[i] + delta * delta * n_a * n_b / n;
  }
  count_ += other.count_;
  return absl::OkStatus();
}

std::optional<double> VectorMoments::CovarianceTrace() const {
  if (count_ < 2) return std::nullopt;
  double sum = 0;
  for (const double element : squared_deviations_) sum += element;
  return sum / static_cast<double>(count_ - 1);
}

std::string VectorMoments::Serialize() const {
  std::string bytes(kMagic);
  bytes.reserve(static_cast<size_t>(SerializedBytes(width())));
  AppendLittleEndian(kVersion, bytes);
  AppendLittleEndian(mean_.size(), bytes);
  AppendLittleEndian(static_cast<uint64_t>(count_), bytes);
  for (const double element : mean_) AppendLittleEndian(std::bit_cast<uint64_t>(element), bytes);
  for (const double element : squared_deviations_) {
    AppendLittleEndian(std::bit_cast<uint64_t>(element), bytes);
  }
  return bytes;
}

int64_t VectorMoments::SerializedBytes(int64_t width) {
  return static_cast<int64_t>(kHeaderBytes) + 2 * width * static_cast<int64_t>(sizeof(double));
}

absl::StatusOr<VectorMoments> VectorMoments::Parse(absl::string_view bytes, int64_t width) {
  VS_CHECK(width >= 0);
  if (bytes.size() < kHeaderBytes || bytes.substr(0, kMagic.size()) != kMagic) {
    return Damaged("they are not moments");
  }
  if (const uint64_t version = ReadLittleEndian(bytes, 8); version != kVersion) {
    return Damaged(absl::StrCat("format version ", version, ", this build reads ", kVersion));
  }
  if (const uint64_t stored = ReadLittleEndian(bytes, 16); stored != static_cast<uint64_t>(width)) {
    return Damaged(absl::StrCat("width ", stored, ", expected ", width));
  }
  const uint64_t count = ReadLittleEndian(bytes, 24);
  if (count > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Damaged("impossible count");
  }
  const size_t elements_bytes = bytes.size() - kHeaderBytes;
  if (elements_bytes % (2 * sizeof(double)) != 0 ||
      elements_bytes / (2 * sizeof(double)) != static_cast<uint64_t>(width)) {
    return Damaged("wrong length");
  }
  VectorMoments moments(width);
  moments.count_ = static_cast<int64_t>(count);
  size_t offset = kHeaderBytes;
  for (std::vector<double>* column : {&moments.mean_, &moments.squared_deviations_}) {
    for (double& element : *column) {
      element = std::bit_cast<double>(ReadLittleEndian(bytes, offset));
      offset += sizeof(double);
      if (!std::isfinite(element)) return Damaged("a number is not finite");
    }
  }
  for (const double element : moments.squared_deviations_) {
    if (element < 0) return Damaged("a sum of squares is negative");
  }
  return moments;
}

}  // namespace valuescope::analysis
