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
  float sums[kLanes] = {};  // of the weights, a lane each
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
  alignas(kLanes * sizeof(float)) float weights[kPair];
  float rescale;  // of everything before
  int64_t begin, end;
};

VS_INLINED float Largest(const float* x, int64_t count) {
  using Floats = Halved::Floats;
  Floats y = VectorAt<Halved>(x);
  for (int64_t i = Halved::kWidth; i < count; i += Halved::kWidth) {
    const Floats& next = VectorAt<Halved>(x + i);
    y = y > next ? y : next;
  }
  const Floats fours = __builtin_shufflevector(y, y, 4, 5, 6, 7, 0, 1, 2, 3);
  y = y > fours ? y : fours;
  const Floats twos = __builtin_shufflevector(y, y, 2, 3, 0, 1, 6, 7, 4, 5);
  y = y > twos ? y : twos;
  return std::max(y[0], y[1]);
}

// Soft caps are of few families, and cost far more than the loop around them.
VS_INLINED void SoftCap(PairWeights& pair, float cap) {
  for (float& score : pair.weights) score = cap * Tanh(score / cap);
}

// From scores to weights; keys that the row does not see weigh nothing.
template <typename V>
VS_INLINED void Weigh(Row& row, int64_t pair_begin, float soft_cap, PairWeights& pair) {
  using Floats = typename V::Floats;
  constexpr int kVectors = kPair / V::kWidth;
  constexpr float kUnseen = -std::numeric_limits<float>::infinity();
  pair.begin = std::clamp<int64_t>(row.first - pair_begin, 0, kPair);
  pair.end = std::clamp<int64_t>(row.end - pair_begin, pair.begin, kPair);
  const auto set_unseen = [&](float weight) {
    std::fill(pair.weights, pair.weights + pair.begin, weight);
    std::fill(pair.weights + pair.end, pair.weights + kPair, weight);
  };
  if (soft_cap > 0) SoftCap(pair, soft_cap);
  set_unseen(kUnseen);
  Floats weights[kVectors];
  for (int v = 0; v < kVectors; ++v) weights[v] = VectorAt<V>(pair.weights + v * V::kWidth);
  Floats larger = weights[0];
  for (int v = 1; v < kVectors; ++v) larger = larger > weights[v] ? larger : weights[v];
  float lanes[V::kWidth];
  VectorAt<V>(lanes) = larger;
  const float maximum = std::max(row.maximum, Largest(lanes, V::kWidth));
  pair.rescale = 1;
  if (maximum > row.maximum) {
    pair.rescale = row.maximum == kUnseen ? 0.0f : ExpOfNonPositive(row.maximum - maximum);
    row.maximum = maximum;
  }
  for (int v = 0; v < kVectors; ++v) {
    weights[v] -= maximum;
    TakeExpOfNonPositive<V>(weights[v]);
    VectorAt<V>(pair.weights + v * V::kWidth) = weights[v];
  }
  set_unseen(0);
  for (int lane = 0; lane < kLanes; lane += V::kWidth) {
    Floats& sums = VectorAt<V>(row.sums + lane);
    sums = sums * pair.rescale + VectorAt<V>(pair.weights + lane);
    sums += VectorAt<V>(pair.weights + kLanes + lane);
  }
}

// Before the first pair: nothing is summed. Returns all that the rows, at least one, see: from the
// first key that any of them sees to behind the last one.
inline KeyRange BeginRows(std::vector<Row>& rows, int64_t head_dim) {
  KeyRange seen{rows[0].first, rows[0].end};
  for (Row& row : rows) {
    seen = {std::min(seen.first, row.first), std::max(seen.end, row.end)};
    row.maximum = -std::numeric_limits<float>::infinity();
    std::fill_n(row.sums, kLanes, 0.0f);
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
