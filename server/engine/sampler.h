// From logits to a token. A draw depends on the request's seed and the number of the token only,
// never on the batch or on the order in which requests came.
#ifndef VALUESCOPE_ENGINE_SAMPLER_H_
#define VALUESCOPE_ENGINE_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/request.h"

namespace valuescope::engine {

// Ranges of everything in Sampling but max_tokens; fields as in the contract ("temperature",
// "top_p", ...). `vocabulary`: the model's, for stop_token_ids.
absl::Status CheckSampling(const Sampling& sampling, int64_t vocabulary);

// Tokens that may be drawn, likeliest first, the highest id first of those alike, and their
// probabilities but for one factor.
struct Candidates {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

// What the filters leave of `logits` [vocabulary] at a temperature above 0: the tokens that Hugging
// Face transformers leaves. top_k: those at least as likely as the k-th, so that ties stay. top_p:
// those before which less than this share of the mass lies that top_k left; of tokens alike the
// highest ids. min_p: those at least this fraction as likely as the likeliest.
Candidates CandidatesOf(std::span<const float> logits, const Sampling& sampling,
                        const std::vector<int32_t>& seen);

// The token for `logits` [vocabulary]. `seen` are the ids of prompt and response so far (for the
// repetition penalty); `index` counts generated tokens from 0. Greedy at temperature 0, ties to the
// lowest id. Order: repetition penalty, temperature, top_k, top_p, min_p.
int32_t SampleToken(std::span<const float> logits, const Sampling& sampling,
                    const std::vector<int32_t>& seen, int64_t index);

// Natural log-probability of `token` and of the `top` likeliest tokens, from the logits as they
// are. Sums in float64.
TokenLogprob LogprobOf(std::span<const float> logits, int32_t token, int top);

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_SAMPLER_H_
