// What attention of a CPU is made of, whoever multiplies: rows that go over the blocks of a cache,
// two at a time, with a softmax whose maximum grows from pair to pair.
#ifndef VALUESCOPE_MODEL_ATTENTION_ROWS_H_
#define VALUESCOPE_MODEL_ATTENTION_ROWS_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/vectorised.h"

namespace valuescope::model::cpu {

// Keys of a pair of blocks.
inline constexpr int64_t kPair = 2 * kLanes;
// Rows that go over a pair one behind the other: what they and the pair take fits the nearest
// cache.
inline constexpr int64_t kRowsAtOnce = 32;

// One query head of one token.
struct Row {
  const float* query;  // [head_dim]
  float* out;          // [head_dim]
  int64_t first, end;  // the keys it sees: positions first .. end - 1
  float maximum = 0;
  Lanes sums = {};  // of the weights, a lane each
};

struct KeyRange {
  int64_t first, end;
};

// One head of one sequence's cache.
template <typename T>
struct CachedHead {
  const T* keys;          // of a block: [head_dim, kLanes]
  const T* values;        // of a block: [kLanes, value_stride], head_dim of them this head's
  const int64_t* blocks;  // the sequence's
  int64_t key_block, value_block, value_stride;  // elements
  int64_t head_dim;

  const T* KeysAt(int64_t place) const { return keys + blocks[place] * key_block; }
  const T* ValuesAt(int64_t place) const { return values + blocks[place] * value_block; }
};

// The places of the pair at `begin` in its sequence. Where a block that no row sees would be stands
// one that some row does.
inline std::array<int64_t, 2> PlacesOfPair(int64_t begin, const KeyRange& seen) {
  const auto place = [&](int64_t wish) {
    return std::clamp(wish, seen.first / kLanes, (seen.end - 1) / kLanes);
  };
  return {place(begin / kLanes), place(begin / kLanes + 1)};
}

struct Scoring {
  float scale, soft_cap;
};

// A row's scores, then weights, in a pair, and which of its keys they are for.
struct PairWeights {
  alignas(kLanes * sizeof(float)) Lanes weights[2];
  float rescale;  // of everything before
  int64_t begin, end;
};

VS_INLINED Lanes Larger(const Lanes& a, const Lanes& b) { return a > b ? a : b; }

VS_INLINED float Largest(Lanes x) {
  x = Larger(x,
             __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  x = Larger(x,
             __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  x = Larger(x,
             __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  x = Larger(x,
             __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  return x[0];
}

// Soft caps are of few families, and cost far more than the loop around them.
VS_INLINED void SoftCap(Lanes& scores, float cap) {
  for (int j = 0; j < kLanes; ++j) scores[j] = cap * Tanh(scores[j] / cap);
}

// x at the places begin .. end - 1, `otherwise` at the others.
VS_INLINED Lanes Within(const Lanes& x, float begin, float end, float otherwise) {
  constexpr Lanes kPlaces = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Lanes others = Lanes{} + otherwise;
  const Lanes from_begin = kPlaces >= begin ? x : others;
  return kPlaces < end ? from_begin : others;
}

// From scores to weights; keys that the row does not see weigh nothing.
VS_INLINED void Weigh(Row& row, int64_t pair_begin, float soft_cap, PairWeights& pair) {
  constexpr float kUnseen = -std::numeric_limits<float>::infinity();
  pair.begin = std::clamp<int64_t>(row.first - pair_begin, 0, kPair);
  pair.end = std::clamp<int64_t>(row.end - pair_begin, pair.begin, kPair);
  const bool all = pair.end - pair.begin == kPair;
  const auto only_seen = [&](float otherwise) {
    for (int b = 0; b < 2; ++b) {
      pair.weights[b] = Within(pair.weights[b], static_cast<float>(pair.begin - b * kLanes),
                               static_cast<float>(pair.end - b * kLanes), otherwise);
    }
  };
  if (soft_cap > 0) {
    for (Lanes& scores : pair.weights) SoftCap(scores, soft_cap);
  }
  if (!all) only_seen(kUnseen);
  const float maximum = std::max(row.maximum, Largest(Larger(pair.weights[0], pair.weights[1])));
  pair.rescale = 1;
  if (maximum > row.maximum) {
    pair.rescale = row.maximum == kUnseen ? 0.0f : ExpOfNonPositive(row.maximum - maximum);
    row.maximum = maximum;
  }
  for (Lanes& weights : pair.weights) {
    weights -= maximum;
    TakeExpOfNonPositive(weights);
  }
  if (!all) only_seen(0);
  row.sums = row.sums * pair.rescale + pair.weights[0];
  row.sums += pair.weights[1];
}

// Before the first pair: nothing is summed. Returns all that the rows, at least one, see: from the
// first key that any of them sees to behind the last one.
inline KeyRange BeginRows(std::vector<Row>& rows, int64_t head_dim) {
  KeyRange seen{rows[0].first, rows[0].end};
  for (Row& row : rows) {
    seen = {std::min(seen.first, row.first), std::max(seen.end, row.end)};
    row.maximum = -std::numeric_limits<float>::infinity();
    row.sums = Lanes{};
    std::fill_n(row.out, head_dim, 0.0f);
  }
  return seen;
}

// Behind the last pair: sums become means.
inline void EndRows(const std::vector<Row>& rows, int64_t head_dim) {
  for (const Row& row : rows) {
    float sum = 0;
    for (int j = 0; j < kLanes; ++j) sum += row.sums[j];
    const float factor = 1.0f / sum;
    for (int64_t i = 0; i < head_dim; ++i) row.out[i] *= factor;
  }
}

}  // namespace valuescope::model::cpu

#endif  // VALUESCOPE_MODEL_ATTENTION_ROWS_H_
