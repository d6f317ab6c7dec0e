// How varied generated text is, over n-grams of token ids that never cross from one response to the
// next. With C n-grams, N of them distinct and V the size of the vocabulary:
//   Distinct-n = N / C                                  (Li et al. 2016)
//   EAD        = N / (V (1 - ((V - 1) / V)^C))          (Liu et al. 2022, expectation-adjusted)
//   entropy    = -sum p log2 p over the n-grams' frequencies
// EAD is computed by expm1 and log1p: as written it loses its digits for large V.
//
// Self-BLEU (Zhu et al. 2018) is the mean over the responses of BLEU against all others. Of one
// with L tokens, the orders n are 1 to m = min(4, L) (effective order), all of weight 1 / m:
//   BLEU = exp(min(0, 1 - R / L)) * exp(mean over n of log p_n)
// where R is the length of the others that is closest to L, of two equally close the shorter, p_1
// is clipped matches / n-grams, and p_n above 1 is (clipped matches + 1) / (n-grams + 1) (smoothing
// of Lin and Och 2004, method 2 of Chen and Cherry 2014). Without a matching token BLEU is 0. That
// is nltk's sentence_bleu with those weights and method2.
#ifndef VALUESCOPE_ANALYSIS_DIVERSITY_H_
#define VALUESCOPE_ANALYSIS_DIVERSITY_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace valuescope::analysis {

// Token ids of a response. Does not own them.
using TokenSpan = std::span<const int32_t>;

struct NgramDiversity {
  int64_t num_ngrams = 0;    // C
  int64_t num_distinct = 0;  // N
  // Absent where no response has n tokens.
  std::optional<double> distinct;              // 0 .. 1
  std::optional<double> expectation_adjusted;  // EAD, >= distinct
  std::optional<double> entropy;               // bits, 0 .. log2 N
};

// `n` in 1 .. 16, `vocabulary_size` V >= 1; otherwise INVALID_ARGUMENT.
absl::StatusOr<NgramDiversity> ComputeNgramDiversity(std::span<const TokenSpan> responses, int n,
                                                     int64_t vocabulary_size);

// EAD of N distinct ones of C > 0 n-grams; V >= 1. None of the numbers need be whole.
double ExpectationAdjustedDistinct(double distinct, double ngrams, double vocabulary);

// Absent with fewer than two responses. None is empty.
std::optional<double> SelfBleu(std::span<const TokenSpan> responses);

// Bytes that either takes at most of responses with so many tokens together.
int64_t DiversityBytes(int64_t num_responses, int64_t num_tokens);

// Whether a response says something: no token makes up more than half of it, and no pair of
// neighbours more than half of its pairs. One of fewer than kFewestRepeated tokens always does.
inline constexpr size_t kFewestRepeated = 8;
bool IsCoherent(TokenSpan response);

}  // namespace valuescope::analysis

#endif  // VALUESCOPE_ANALYSIS_DIVERSITY_H_
