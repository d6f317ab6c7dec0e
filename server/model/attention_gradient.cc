#include "model/attention_gradient.h"

#include <ATen/ATen.h>

#include <limits>

namespace valuescope::model {
namespace {

// Tokens of a step as a rectangle: [sequences, most_tokens], where a sequence with fewer tokens
// repeats none and has places that are nobody's.
class Rectangle {
 public:
  Rectangle(const StepBatch& batch, int64_t sequences)
      : batch_(batch), sequences_(sequences), first_(Extreme("amin")), last_(Extreme("amax")) {
    places_ = batch.sequences * batch.most_tokens + batch.positions -
              first_.index_select(0, batch.sequences);
  }

  // x [num_tokens, kv_heads * group * head_dim] -> [sequences * kv_heads, group * most_tokens,
  // head_dim] float32, 0 where nobody is.
  at::Tensor Spread(const at::Tensor& x, const HeadShape& heads) const {
    const int64_t kv = heads.num_kv_heads, most = batch_.most_tokens;
    const at::Tensor spread =
        at::zeros({sequences_ * most, x.size(1)}, x.options().dtype(at::kFloat))
            .index_copy_(0, places_, x.to(at::kFloat));
    return spread.view({sequences_, most, kv, -1, heads.head_dim})
        .permute({0, 2, 3, 1, 4})
        .reshape({sequences_ * kv, -1, heads.head_dim});
  }

  // The other way.
  at::Tensor Gathered(const at::Tensor& spread, const HeadShape& heads) const {
    const int64_t kv = heads.num_kv_heads, most = batch_.most_tokens;
    return spread.view({sequences_, kv, -1, most, heads.head_dim})
        .permute({0, 3, 1, 2, 4})
        .reshape({sequences_ * most, -1})
        .index_select(0, places_);
  }

  // Positions that a token does not see: [sequences, 1, 1, most_tokens, length]. What is nobody's
  // is the sequence's last token, so that it sees something.
  at::Tensor Unseen(int64_t length, int64_t window) const {
    const at::Tensor offsets = at::arange(batch_.most_tokens, batch_.positions.options());
    const at::Tensor own = at::minimum(first_.unsqueeze(1) + offsets, last_.unsqueeze(1));
    const at::Tensor token = own.view({sequences_, 1, 1, batch_.most_tokens, 1});
    const at::Tensor key = at::arange(length, batch_.positions.options());
    at::Tensor unseen = key > token;
    if (window > 0) unseen = unseen | (key <= token - window);
    return unseen;
  }

  // What the cache holds of every sequence: [sequences * kv_heads, length, head_dim] float32, 0
  // behind its last token, where anything may stand.
  at::Tensor OfSequences(const at::Tensor& cache, const HeadShape& heads) const {
    const at::Tensor whole = cache.index_select(0, batch_.block_tables.reshape(-1))
                                 .view({sequences_, -1, heads.num_kv_heads, heads.head_dim})
                                 .permute({0, 2, 1, 3})
                                 .to(at::kFloat);
    const at::Tensor behind =
        at::arange(whole.size(2), batch_.positions.options()).unsqueeze(0) > last_.unsqueeze(1);
    return whole.masked_fill(behind.view({sequences_, 1, -1, 1}), 0)
        .reshape({sequences_ * heads.num_kv_heads, -1, heads.head_dim});
  }

  // Of `x`, shaped as OfSequences returns it, what belongs to the step's tokens: [num_tokens,
  // kv_heads * head_dim].
  at::Tensor OfTokens(const at::Tensor& x, const HeadShape& heads) const {
    const int64_t length = x.size(1);
    return x.view({sequences_, heads.num_kv_heads, length, heads.head_dim})
        .permute({0, 2, 1, 3})
        .reshape({sequences_ * length, -1})
        .index_select(0, batch_.sequences * length + batch_.positions);
  }

 private:
  // Of the positions of each sequence's tokens: [sequences].
  at::Tensor Extreme(const char* which) const {
    return at::zeros({sequences_}, batch_.positions.options())
        .scatter_reduce(0, batch_.sequences, batch_.positions, which, /*include_self=*/false);
  }

  const StepBatch& batch_;
  const int64_t sequences_;
  at::Tensor first_, last_;  // [sequences]
  at::Tensor places_;        // [num_tokens], of the rectangle
};

}  // namespace

at::Tensor AttentionGradient(const at::Tensor& qkv, const at::Tensor& keys,
                             const at::Tensor& values, const StepBatch& batch,
                             const HeadShape& heads, const AttentionScores& scores,
                             const at::Tensor& gradient) {
  const int64_t sequences = batch.block_tables.size(0);
  const Rectangle rectangle(batch, sequences);
  const at::Tensor q = rectangle.Spread(qkv.narrow(1, 0, heads.num_heads * heads.head_dim), heads);
  const at::Tensor k = rectangle.OfSequences(keys, heads);
  const at::Tensor v = rectangle.OfSequences(values, heads);
  const at::Tensor by_output = rectangle.Spread(gradient, heads);

  at::Tensor capped = at::bmm(q, k.transpose(1, 2)).mul_(scores.scale);
  if (scores.soft_cap > 0) capped.div_(scores.soft_cap).tanh_();  // in units of the cap
  at::Tensor weights = scores.soft_cap > 0 ? capped * scores.soft_cap : capped;
  weights = weights.view({sequences, heads.num_kv_heads, -1, batch.most_tokens, k.size(1)})
                .masked_fill(rectangle.Unseen(k.size(1), scores.window),
                             -std::numeric_limits<float>::infinity())
                .softmax(-1)
                .view_as(capped);

  const at::Tensor by_values = at::bmm(weights.transpose(1, 2), by_output);
  at::Tensor by_scores = at::bmm(by_output, v.transpose(1, 2));
  by_scores.sub_((by_scores * weights).sum(-1, /*keepdim=*/true)).mul_(weights);
  if (scores.soft_cap > 0) by_scores.mul_(1 - capped.square());
  by_scores.mul_(scores.scale);
  const at::Tensor by_queries = at::bmm(by_scores, k);
  const at::Tensor by_keys = at::bmm(by_scores.transpose(1, 2), q);
  return at::cat({rectangle.Gathered(by_queries, heads), rectangle.OfTokens(by_keys, heads),
                  rectangle.OfTokens(by_values, heads)},
                 1)
      .to(qkv.scalar_type());
}

}  // namespace valuescope::model
