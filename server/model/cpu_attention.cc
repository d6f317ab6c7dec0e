// Attention of a CPU in float32. Rows (a query head of a token each) go over the blocks of a
// sequence's cache together, so that keys and values are read once for many of them: two blocks at
// a time, those at even places with the ones behind them. What is computed for a row, and in which
// order, depends on the row alone: on its first and last key and on where blocks begin, never on
// its company.
//
// A block has as many keys as a vector has lanes. Its keys are stored as columns (kv_cache.h), so
// the scores of a block are one vector: the sum over i of query[i] times the keys' i-th elements.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/vectorised.h"
#include "model/cpu_kernels.h"
#include "model/kv_cache.h"
#include "model/reference.h"
#include "model/work_shares.h"

namespace valuescope::model::cpu {
namespace {

static_assert(KvCache::kColumns == kLanes);
constexpr int64_t kPair = 2 * kLanes;
// Rows whose sums registers hold, and rows that go over a pair of blocks one behind the other: what
// they and the pair take fits the nearest cache.
constexpr int kMostRows = 4;
constexpr int64_t kRowsAtOnce = 32;

// One query head of one token.
struct Row {
  const float* query;  // [head_dim]
  float* out;          // [head_dim]
  int64_t first, end;  // the keys it sees: positions first .. end - 1
  // A softmax whose maximum grows from block to block.
  float maximum = -std::numeric_limits<float>::infinity();
  Lanes sums = {};  // of the weights, a lane each
};

// One head of one sequence's cache.
struct CachedHead {
  const float* keys;      // of a block: [head_dim, kLanes]
  const float* values;    // of a block: [kLanes, value_stride], head_dim of them this head's
  const int64_t* blocks;  // the sequence's
  int64_t key_block, value_block, value_stride;  // elements
  int64_t head_dim;
};

struct Scoring {
  float scale, soft_cap;
};

// The keys and values of two blocks, from position `begin` on.
struct Pair {
  int64_t begin;
  const float* keys[2];
  const float* values[2];
};

// A row's weights in a pair, and which of its keys they are for.
struct PairWeights {
  alignas(kLanes * sizeof(float)) Lanes weights[2];
  float rescale;  // of everything before
  int64_t begin, end;
};

template <int kRows>
VS_INLINED void Scores(const Row* rows, const Pair& pair, int64_t head_dim, float scale,
                       PairWeights* out) {
  // Two sums a row and block: each waits for its last product.
  Lanes even[kRows][2] = {}, odd[kRows][2] = {};
  for (int64_t i = 0; i < head_dim; i += 2) {
#pragma GCC unroll 2
    for (int b = 0; b < 2; ++b) {
      const Lanes first = LanesAt(pair.keys[b] + i * kLanes);
      const Lanes second = LanesAt(pair.keys[b] + (i + 1) * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        even[r][b] += rows[r].query[i] * first;
        odd[r][b] += rows[r].query[i + 1] * second;
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int b = 0; b < 2; ++b) out[r].weights[b] = (even[r][b] + odd[r][b]) * scale;
  }
}

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

// out = rescale out + the weighted values, of kVectors vectors of a head's dimensions from `at` on.
// Unseen slots may hold anything and are not read.
template <int kRows, int kVectors>
VS_INLINED void AddValues(const Row* rows, const PairWeights* weights, const Pair& pair,
                          int64_t stride, int64_t at) {
  Lanes sums[kRows][kVectors];
  int64_t begin = 0, end = kPair;  // seen by all
  for (int r = 0; r < kRows; ++r) {
    begin = std::max(begin, weights[r].begin);
    end = std::min(end, weights[r].end);
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = LanesAt(rows[r].out + at + v * kLanes) * weights[r].rescale;
    }
  }
  end = std::max(begin, end);
  const auto add = [&](int r, int64_t b, int64_t j) {
    const float* values = pair.values[b] + j * stride + at;
    const float weight = weights[r].weights[b][j];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] += weight * LanesAt(values + v * kLanes);
  };
  for (int r = 0; r < kRows; ++r) {
    const int64_t last = std::min(begin, weights[r].end);
    for (int64_t j = weights[r].begin; j < last; ++j) add(r, j / kLanes, j % kLanes);
  }
  for (int64_t b = 0; b < 2; ++b) {
    const int64_t last = std::min<int64_t>(end - b * kLanes, kLanes);
    for (int64_t j = std::max<int64_t>(begin - b * kLanes, 0); j < last; ++j) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) add(r, b, j);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t first = std::max(end, weights[r].begin);
    for (int64_t j = first; j < weights[r].end; ++j) add(r, j / kLanes, j % kLanes);
    for (int v = 0; v < kVectors; ++v) LanesAt(rows[r].out + at + v * kLanes) = sums[r][v];
  }
}

// The same for the dimensions behind the last whole vector.
template <int kRows>
VS_INLINED void AddLastValues(const Row* rows, const PairWeights* weights, const Pair& pair,
                              int64_t stride, int64_t at, int64_t head_dim) {
  for (int r = 0; r < kRows; ++r) {
    for (int64_t i = at; i < head_dim; ++i) {
      float sum = rows[r].out[i] * weights[r].rescale;
      for (int64_t j = weights[r].begin; j < weights[r].end; ++j) {
        const int64_t b = j / kLanes, lane = j % kLanes;
        sum += weights[r].weights[b][lane] * pair.values[b][lane * stride + i];
      }
      rows[r].out[i] = sum;
    }
  }
}

template <int kRows>
VS_INLINED void AttendToPair(Row* rows, const Pair& pair, const CachedHead& head,
                             const Scoring& scoring) {
  constexpr int kWide = 4;
  PairWeights weights[kRows];
  Scores<kRows>(rows, pair, head.head_dim, scoring.scale, weights);
  for (int r = 0; r < kRows; ++r) Weigh(rows[r], pair.begin, scoring.soft_cap, weights[r]);
  int64_t at = 0;
  for (; at + kWide * kLanes <= head.head_dim; at += kWide * kLanes) {
    AddValues<kRows, kWide>(rows, weights, pair, head.value_stride, at);
  }
  for (; at + kLanes <= head.head_dim; at += kLanes) {
    AddValues<kRows, 1>(rows, weights, pair, head.value_stride, at);
  }
  AddLastValues<kRows>(rows, weights, pair, head.value_stride, at, head.head_dim);
}

VS_VECTORISED void AttendRowsToPair(Row* rows, int64_t count, const Pair& pair,
                                    const CachedHead& head, const Scoring& scoring) {
  static_assert(kMostRows == 4);
  for (int64_t r = 0; r < count; r += kMostRows) {
    switch (count - r) {
      case 1:
        AttendToPair<1>(rows + r, pair, head, scoring);
        break;
      case 2:
        AttendToPair<2>(rows + r, pair, head, scoring);
        break;
      case 3:
        AttendToPair<3>(rows + r, pair, head, scoring);
        break;
      default:
        AttendToPair<kMostRows>(rows + r, pair, head, scoring);
    }
  }
}

// At most kRowsAtOnce rows.
void Attend(Row* rows, int64_t count, const CachedHead& head, const Scoring& scoring) {
  int64_t first = rows[0].first, end = rows[0].end;
  for (int64_t r = 1; r < count; ++r) {
    first = std::min(first, rows[r].first);
    end = std::max(end, rows[r].end);
  }
  for (int64_t r = 0; r < count; ++r) std::fill_n(rows[r].out, head.head_dim, 0.0f);
  for (int64_t begin = first / kPair * kPair; begin < end; begin += kPair) {
    Pair pair{.begin = begin};
    for (int64_t b = 0; b < 2; ++b) {
      // In the place of a block that no row sees stands one that some row does.
      const int64_t place = std::clamp(begin / kLanes + b, first / kLanes, (end - 1) / kLanes);
      pair.keys[b] = head.keys + head.blocks[place] * head.key_block;
      pair.values[b] = head.values + head.blocks[place] * head.value_block;
    }
    AttendRowsToPair(rows, count, pair, head, scoring);
  }
  for (int64_t r = 0; r < count; ++r) {
    float sum = 0;
    for (int j = 0; j < kLanes; ++j) sum += rows[r].sums[j];
    const float factor = 1.0f / sum;
    for (int64_t i = 0; i < head.head_dim; ++i) rows[r].out[i] *= factor;
  }
}

// Tokens of one sequence that stand behind each other in the step, within one block of its cache:
// they see nearly the same keys.
struct Tile {
  int64_t first_token, num_tokens;
};

std::vector<Tile> Tiles(const int64_t* sequences, const int64_t* positions, int64_t num_tokens) {
  std::vector<Tile> tiles;
  for (int64_t t = 0; t < num_tokens; ++t) {
    const bool goes_on = t > 0 && sequences[t] == sequences[t - 1] &&
                         positions[t] == positions[t - 1] + 1 && positions[t] % kLanes != 0;
    if (goes_on) {
      ++tiles.back().num_tokens;
    } else {
      tiles.push_back({t, 1});
    }
  }
  return tiles;
}

// The first position that a token sees.
int64_t FirstKey(int64_t position, int64_t window) {
  return window > 0 ? std::max<int64_t>(0, position + 1 - window) : 0;
}

// Work below this many float operations is done before another thread is awake.
constexpr int64_t kGrainOperations = 200000;

// How many of `items` equal shares of attending to so many keys in all are worth a thread.
int64_t Grain(int64_t items, int64_t num_keys, int64_t operations_per_key) {
  const int64_t operations = std::max<int64_t>(1, num_keys * operations_per_key);
  return std::max<int64_t>(1, items * kGrainOperations / operations);
}

bool HasKernel(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values) {
  return qkv.scalar_type() == at::kFloat && qkv.is_contiguous() && KvCache::KeysAreColumns(keys) &&
         values.is_contiguous();
}

}  // namespace

at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, int64_t num_heads, int64_t num_kv_heads,
                     int64_t head_dim, double scale, double soft_cap, int64_t window) {
  if (!HasKernel(qkv, keys, values)) {
    return reference::Attention(qkv, keys, values, sequences, positions, block_tables, num_heads,
                                num_kv_heads, head_dim, scale, soft_cap, window);
  }
  at::Tensor out = at::empty({qkv.size(0), num_heads * head_dim}, qkv.options());
  const int64_t group = num_heads / num_kv_heads;
  const float* query_data = qkv.const_data_ptr<float>();
  float* out_data = out.mutable_data_ptr<float>();
  const int64_t* sequence = sequences.const_data_ptr<int64_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  const int64_t* tables = block_tables.const_data_ptr<int64_t>();
  const Scoring scoring{static_cast<float>(scale), static_cast<float>(soft_cap)};
  const std::vector<Tile> tiles = Tiles(sequence, position, qkv.size(0));
  const int64_t items = static_cast<int64_t>(tiles.size()) * num_kv_heads;
  int64_t num_keys = 0;
  for (int64_t t = 0; t < qkv.size(0); ++t)
    num_keys += position[t] + 1 - FirstKey(position[t], window);
  const int64_t grain = Grain(items, num_keys, 4 * num_heads * head_dim);
  ForRanges(items, grain, [&](int64_t begin, int64_t end) {
    std::vector<Row> rows;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t kv_head = item % num_kv_heads;
      const Tile& tile = tiles[static_cast<size_t>(item / num_kv_heads)];
      rows.clear();
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        for (int64_t t = tile.first_token; t < tile.first_token + tile.num_tokens; ++t) {
          rows.push_back({.query = query_data + t * qkv.size(1) + head * head_dim,
                          .out = out_data + (t * num_heads + head) * head_dim,
                          .first = FirstKey(position[t], window),
                          .end = position[t] + 1});
        }
      }
      const CachedHead cached{.keys = keys.const_data_ptr<float>() + kv_head * keys.stride(2),
                              .values = values.const_data_ptr<float>() + kv_head * values.stride(2),
                              .blocks = tables + sequence[tile.first_token] * block_tables.size(1),
                              .key_block = keys.stride(0),
                              .value_block = values.stride(0),
                              .value_stride = values.stride(1),
                              .head_dim = head_dim};
      const auto count = static_cast<int64_t>(rows.size());
      for (int64_t r = 0; r < count; r += kRowsAtOnce) {
        Attend(rows.data() + r, std::min(kRowsAtOnce, count - r), cached, scoring);
      }
    }
  });
  return out;
}

}  // namespace valuescope::model::cpu
