#include "engine/logit_row.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/vectorised.h"

namespace valuescope::engine {
namespace {

// Few enough for sums in float32, many enough to make what is done a block cheap.
constexpr size_t kBlock = 256;

// NaN as soon as one is not finite.
VS_VECTORISED float Poison(const float* logits, size_t count) {
  float poison = 0;
#pragma omp simd reduction(+ : poison)
  for (size_t i = 0; i < count; ++i) poison += logits[i] * 0.0f;
  return poison;
}

VS_VECTORISED float Largest(const float* logits, size_t count) {
  float largest = logits[0];
#pragma omp simd reduction(max : largest)
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, logits[i]);
  return largest;
}

VS_VECTORISED float Sum(const float* weights, size_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < count; ++i) sum += weights[i];
  return sum;
}

VS_VECTORISED void Weigh(const float* logits, size_t count, float largest, float temperature,
                         float* weights) {
#pragma omp simd
  for (size_t i = 0; i < count; ++i) {
    const float x = (logits[i] - largest) / temperature;
    weights[i] = x < kLeastExponent ? 0.0f : ExpOfNonPositive(x);
  }
}

VS_VECTORISED float LargestSum(const float* logits, const float* more, float factor, size_t count) {
  float largest = logits[0] + factor * more[0];
#pragma omp simd reduction(max : largest)
  for (size_t i = 0; i < count; ++i) largest = std::max(largest, logits[i] + factor * more[i]);
  return largest;
}

VS_VECTORISED float SumOfExp(const float* logits, const float* more, float factor, float largest,
                             size_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (size_t i = 0; i < count; ++i) {
    sum += ExpOfNonPositive(logits[i] + factor * more[i] - largest);
  }
  return sum;
}

}  // namespace

absl::Status LogitsNotFinite() {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "LOGITS_NOT_FINITE",
                         "the model's logits are not finite numbers; with interventions, lower "
                         "their coefficients");
}

absl::Status CheckFinite(std::span<const float> logits) {
  const bool finite = Poison(logits.data(), logits.size()) == 0;
  return finite ? absl::OkStatus() : LogitsNotFinite();
}

int32_t IndexOfLargest(std::span<const float> logits) {
  size_t best = 0;
  float largest = logits[0];
  for (size_t first = 0; first < logits.size(); first += kBlock) {
    const float here = Largest(&logits[first], std::min(kBlock, logits.size() - first));
    if (here > largest) {
      largest = here;
      best = first;
    }
  }
  while (logits[best] != largest) ++best;
  return static_cast<int32_t>(best);
}

std::span<const float> WeightsOf(std::span<const float> logits, float largest, float temperature,
                                 std::vector<float>& weights) {
  weights.resize(logits.size());
  Weigh(logits.data(), logits.size(), largest, temperature, weights.data());
  return weights;
}

double SumOf(std::span<const float> weights) {
  double sum = 0;
  for (size_t first = 0; first < weights.size(); first += kBlock) {
    sum += static_cast<double>(Sum(&weights[first], std::min(kBlock, weights.size() - first)));
  }
  return sum;
}

double SumOfWeights(std::span<const float> logits, float largest) {
  std::array<float, kBlock> weights;
  double sum = 0;
  for (size_t first = 0; first < logits.size(); first += kBlock) {
    const size_t count = std::min(kBlock, logits.size() - first);
    Weigh(&logits[first], count, largest, /*temperature=*/1, weights.data());
    sum += static_cast<double>(Sum(weights.data(), count));
  }
  return sum;
}

double LogSumExp(std::span<const float> logits, std::span<const float> more, float factor) {
  const float largest = LargestSum(logits.data(), more.data(), factor, logits.size());
  double sum = 0;
  for (size_t first = 0; first < logits.size(); first += kBlock) {
    sum += static_cast<double>(SumOfExp(&logits[first], &more[first], factor, largest,
                                        std::min(kBlock, logits.size() - first)));
  }
  return static_cast<double>(largest) + std::log(sum);
}

size_t IndexOfSum(std::span<const float> weights, double threshold) {
  size_t first = 0;
  for (; first + kBlock < weights.size(); first += kBlock) {
    const double block = static_cast<double>(Sum(&weights[first], kBlock));
    if (threshold < block) break;
    threshold -= block;
  }
  for (size_t i = first; i < weights.size(); ++i) {
    threshold -= static_cast<double>(weights[i]);
    if (threshold < 0) return i;
  }
  // Rounding may leave a crumb at the end: it belongs to the last token that has any weight.
  size_t last = weights.size() - 1;
  while (last > 0 && weights[last] == 0) --last;
  return last;
}

}  // namespace valuescope::engine
