// How varied generated text is, over n-grams of token ids that never cross from one response to the
// next. With C n-grams, N of them distinct and V the size of the vocabulary:
//   Distinct-n = N / C                                  (Li et al. 2016)
//   EAD        = N / (V (1 - ((V - 1) / V)^C))          (Liu et al. 2022, expectation-adjusted)
//   entropy    = -sum p log p over the n-grams' frequencies
// EAD is computed by expm1 and log1p: as written it loses its digits for large V.
#ifndef VALUESCOPE_ANALYSIS_DIVERSITY_H_
#define VALUESCOPE_ANALYSIS_DIVERSITY_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace valuescope::analysis {

struct NgramDiversity {
  int64_t num_ngrams = 0;    // C
  int64_t num_distinct = 0;  // N
  // Absent where no response has n tokens.
  std::optional<double> distinct;              // 0 .. 1
  std::optional<double> expectation_adjusted;  // EAD, >= distinct
  std::optional<double> entropy;               // nats, 0 .. log N
};

// `responses`: token ids of each. `n` in 1 .. 16, `vocabulary_size` V >= 1; otherwise
// INVALID_ARGUMENT.
absl::StatusOr<NgramDiversity> ComputeNgramDiversity(
    std::span<const std::vector<int32_t>> responses, int n, int64_t vocabulary_size);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_DIVERSITY_H_
