// Attention of a CPU. Rows (a query head of a token each) go over the blocks of a sequence's cache
// together, so that keys and values are read once for many of them: two blocks at a time, those at
// even places with the ones behind them. What is computed for a row, and in which order, depends on
// the row alone: on its first and last key and on where blocks begin, never on its company.
// Everything is computed in float32: of a half type, two blocks are widened once for the rows that
// go over them, and a row is rounded when it has seen all. Where a processor multiplies matrices of
// bfloat16, tile_attention.h does.
//
// A block has as many keys as a vector has lanes. Its keys are stored as columns (kv_cache.h), so
// the scores of a block are one vector: the sum over i of query[i] times the keys' i-th elements.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/vectorised.h"
#include "model/attention_rows.h"
#include "model/cpu_kernels.h"
#include "model/half_types.h"
#include "model/kv_cache.h"
#include "model/reference.h"
#include "model/tile_attention.h"
#include "model/vector_width.h"
#include "model/work_shares.h"

namespace valuescope::model::cpu {
namespace {

static_assert(KvCache::kColumns == kLanes);
// Rows that go over a pair together.
constexpr int kMostRows = 4;

// The keys and values of two blocks, from position `begin` on, as CachedHead has them.
struct Pair {
  int64_t begin;
  const float* keys[2];
  const float* values[2];
  int64_t value_stride;
};

// Of kRows rows in kBlocks blocks.
template <typename V, int kRows, int kBlocks>
VS_INLINED void ScoresOf(const Row* rows, const float* const* keys, int64_t head_dim, float scale,
                         int64_t at, PairWeights* out) {
  using Floats = typename V::Floats;
  constexpr int kPerBlock = kLanes / V::kWidth, kVectors = kBlocks * kPerBlock;
  // Two sums a row and vector: each waits for its last product.
  Floats even[kRows][kVectors] = {}, odd[kRows][kVectors] = {};
  for (int64_t i = 0; i < head_dim; i += 2) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const float* columns = keys[v / kPerBlock] + v % kPerBlock * V::kWidth + i * kLanes;
      const Floats first = VectorAt<V>(columns), second = VectorAt<V>(columns + kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        even[r][v] += rows[r].query[i] * first;
        odd[r][v] += rows[r].query[i + 1] * second;
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      VectorAt<V>(out[r].weights + at + v * V::kWidth) = (even[r][v] + odd[r][v]) * scale;
    }
  }
}

// As many rows and blocks at once as registers hold the sums of.
template <typename V, int kRows>
VS_INLINED void Scores(const Row* rows, const Pair& pair, int64_t head_dim, float scale,
                       PairWeights* out) {
  if constexpr (std::is_same_v<V, Whole> || kRows == 1) {
    ScoresOf<V, kRows, 2>(rows, pair.keys, head_dim, scale, 0, out);
  } else {
    for (int b = 0; b < 2; ++b) {
      const float* const* keys = pair.keys + b;
      ScoresOf<V, 2, 1>(rows, keys, head_dim, scale, b * kLanes, out);
      if constexpr (kRows > 2) {
        ScoresOf<V, kRows - 2, 1>(rows + 2, keys, head_dim, scale, b * kLanes, out + 2);
      }
    }
  }
}

// out = rescale out + the weighted values, of kVectors vectors of a head's dimensions from `at` on.
// Unseen slots may hold anything and are not read.
template <typename V, int kRows, int kVectors>
VS_INLINED void AddValues(const Row* rows, const PairWeights* weights, const Pair& pair,
                          int64_t stride, int64_t at) {
  typename V::Floats sums[kRows][kVectors];
  int64_t begin = 0, end = kPair;  // seen by all
  for (int r = 0; r < kRows; ++r) {
    begin = std::max(begin, weights[r].begin);
    end = std::min(end, weights[r].end);
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = VectorAt<V>(rows[r].out + at + v * V::kWidth) * weights[r].rescale;
    }
  }
  end = std::max(begin, end);
  const auto values_of = [&](int64_t j) {
    return pair.values[j / kLanes] + j % kLanes * stride + at;
  };
  const auto add = [&](int r, int64_t j, const float* values) {
    const float weight = weights[r].weights[j];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] += weight * VectorAt<V>(values + v * V::kWidth);
  };
  for (int r = 0; r < kRows; ++r) {
    const int64_t last = std::min(begin, weights[r].end);
    for (int64_t j = weights[r].begin; j < last; ++j) add(r, j, values_of(j));
  }
  for (int64_t b = 0; b < 2; ++b) {
    const int64_t last = std::min<int64_t>(end, (b + 1) * kLanes);
    for (int64_t j = std::max<int64_t>(begin, b * kLanes); j < last; ++j) {
      const float* values = pair.values[b] + (j - b * kLanes) * stride + at;
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) add(r, j, values);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t first = std::max(end, weights[r].begin);
    for (int64_t j = first; j < weights[r].end; ++j) add(r, j, values_of(j));
    for (int v = 0; v < kVectors; ++v) {
      VectorAt<V>(rows[r].out + at + v * V::kWidth) = sums[r][v];
    }
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
        sum += weights[r].weights[j] * pair.values[j / kLanes][j % kLanes * stride + i];
      }
      rows[r].out[i] = sum;
    }
  }
}

template <typename V, int kRows>
VS_INLINED void AttendToPair(Row* rows, const Pair& pair, int64_t head_dim,
                             const Scoring& scoring) {
  // Of 16 vectors of 32 bytes, four rows leave no room for the sums of more than two.
  constexpr int kWide = std::is_same_v<V, Whole> || kRows < 4 ? 4 : 2;
  constexpr int kOne = kLanes / V::kWidth;
  PairWeights weights[kRows];
  Scores<V, kRows>(rows, pair, head_dim, scoring.scale, weights);
  for (int r = 0; r < kRows; ++r) Weigh<V>(rows[r], pair.begin, scoring.soft_cap, weights[r]);
  int64_t at = 0;
  for (; at + kWide * V::kWidth <= head_dim; at += kWide * V::kWidth) {
    AddValues<V, kRows, kWide>(rows, weights, pair, pair.value_stride, at);
  }
  for (; at + kLanes <= head_dim; at += kLanes) {
    AddValues<V, kRows, kOne>(rows, weights, pair, pair.value_stride, at);
  }
  AddLastValues<kRows>(rows, weights, pair, pair.value_stride, at, head_dim);
}

template <typename V>
VS_INLINED void AttendAtMost(int64_t count, Row* rows, const Pair& pair, int64_t head_dim,
                             const Scoring& scoring) {
  static_assert(kMostRows == 4);
  switch (count) {
    case 1:
      return AttendToPair<V, 1>(rows, pair, head_dim, scoring);
    case 2:
      return AttendToPair<V, 2>(rows, pair, head_dim, scoring);
    case 3:
      return AttendToPair<V, 3>(rows, pair, head_dim, scoring);
    default:
      return AttendToPair<V, kMostRows>(rows, pair, head_dim, scoring);
  }
}

VS_VECTORISED void AttendRowsToPair(Row* rows, int64_t count, const Pair& pair, int64_t head_dim,
                                    const Scoring& scoring, bool by_whole_vectors) {
  for (int64_t r = 0; r < count; r += kMostRows) {
    if (by_whole_vectors) {
      AttendAtMost<Whole>(count - r, rows + r, pair, head_dim, scoring);
    } else {
      AttendAtMost<Halved>(count - r, rows + r, pair, head_dim, scoring);
    }
  }
}

// The blocks of a head as float32: those of a half type are widened two by two.
template <typename T>
class WideBlocks {
 public:
  explicit WideBlocks(int64_t head_dim) {
    if constexpr (!kAreWide) memory_.resize(static_cast<size_t>(2 * kPair * head_dim));
  }

  // Those at two places of the sequence, the first of which is for the position `begin`.
  Pair At(const CachedHead<T>& head, int64_t begin, const std::array<int64_t, 2>& places) {
    Pair pair{.begin = begin, .value_stride = kAreWide ? head.value_stride : head.head_dim};
    for (int b = 0; b < 2; ++b) {
      const T *keys = head.KeysAt(places[b]), *values = head.ValuesAt(places[b]);
      if constexpr (kAreWide) {
        pair.keys[b] = keys;
        pair.values[b] = values;
      } else {
        const int64_t size = kLanes * head.head_dim;
        float *wide_keys = memory_.data() + 2 * b * size, *wide_values = wide_keys + size;
        Widen(keys, size, wide_keys);
        Widen(values, head.value_stride, kLanes, head.head_dim, wide_values);
        pair.keys[b] = wide_keys;
        pair.values[b] = wide_values;
      }
    }
    return pair;
  }

 private:
  static constexpr bool kAreWide = std::is_same_v<T, float>;
  std::vector<float> memory_;
};

// What a thread has of its own.
template <typename T>
struct Scratch {
  explicit Scratch(int64_t head_dim)
      : queries(kRowsAtOnce, head_dim), outs(kRowsAtOnce, head_dim), blocks(head_dim) {
    if constexpr (std::is_same_v<T, c10::BFloat16>) tiles = TileAttention::Create(head_dim);
  }

  std::vector<Row> rows;
  WideRows<T> queries, outs;
  WideBlocks<T> blocks;
  std::optional<TileAttention> tiles;
};

// At most kRowsAtOnce rows, whichever way is the fastest that gives a result.
template <typename T>
void AttendRows(const CachedHead<T>& head, const Scoring& scoring, Scratch<T>& own) {
  if constexpr (std::is_same_v<T, c10::BFloat16>) {
    if (own.tiles.has_value() && own.tiles->Attend(own.rows, head, scoring)) return;
  }
  Attend(own.rows, head, scoring, own.blocks);
}

// At most kRowsAtOnce rows.
template <typename T>
void Attend(std::vector<Row>& rows, const CachedHead<T>& head, const Scoring& scoring,
            WideBlocks<T>& blocks) {
  const auto count = static_cast<int64_t>(rows.size());
  const KeyRange seen = BeginRows(rows, head.head_dim);
  for (int64_t begin = seen.first / kPair * kPair; begin < seen.end; begin += kPair) {
    const Pair pair = blocks.At(head, begin, PlacesOfPair(begin, seen));
    AttendRowsToPair(rows.data(), count, pair, head.head_dim, scoring, HasWholeVectors());
  }
  EndRows(rows, head.head_dim);
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

// What a call is about, and the head shape that all of it has.
struct Operands {
  const at::Tensor &qkv, &keys, &values, &block_tables, &out;
  const int64_t *sequences, *positions;
  int64_t num_heads, num_kv_heads, head_dim, window;
  Scoring scoring;
};

// The rows of a tile that share a key head, kRowsAtOnce at a time.
template <typename T>
void AttendTile(const Operands& of, const Tile& tile, int64_t kv_head, Scratch<T>& own) {
  const int64_t group = of.num_heads / of.num_kv_heads, count = group * tile.num_tokens;
  const int64_t sequence = of.sequences[tile.first_token];
  const CachedHead<T> cached{
      .keys = of.keys.const_data_ptr<T>() + kv_head * of.keys.stride(2),
      .values = of.values.const_data_ptr<T>() + kv_head * of.values.stride(2),
      .blocks = of.block_tables.const_data_ptr<int64_t>() + sequence * of.block_tables.size(1),
      .key_block = of.keys.stride(0),
      .value_block = of.values.stride(0),
      .value_stride = of.values.stride(1),
      .head_dim = of.head_dim};
  const auto token = [&](int64_t i) { return tile.first_token + i % tile.num_tokens; };
  const auto head = [&](int64_t i) { return kv_head * group + i / tile.num_tokens; };
  const T* queries = of.qkv.const_data_ptr<T>();
  T* outs = of.out.mutable_data_ptr<T>();
  const auto out = [&](int64_t i) {
    return outs + (token(i) * of.num_heads + head(i)) * of.head_dim;
  };
  for (int64_t first = 0; first < count; first += kRowsAtOnce) {
    const int64_t end = std::min(count, first + kRowsAtOnce);
    own.rows.clear();
    for (int64_t i = first; i < end; ++i) {
      const T* query = queries + token(i) * of.qkv.size(1) + head(i) * of.head_dim;
      own.rows.push_back({.query = own.queries.Read(query, i - first),
                          .out = own.outs.Of(out(i), i - first),
                          .first = FirstKey(of.positions[token(i)], of.window),
                          .end = of.positions[token(i)] + 1});
    }
    AttendRows(cached, of.scoring, own);
    for (int64_t i = first; i < end; ++i) own.outs.Write(out(i), i - first);
  }
}

template <typename T>
void AttendAll(const Operands& of) {
  const int64_t num_tokens = of.qkv.size(0);
  const std::vector<Tile> tiles = Tiles(of.sequences, of.positions, num_tokens);
  const int64_t items = static_cast<int64_t>(tiles.size()) * of.num_kv_heads;
  int64_t num_keys = 0;
  for (int64_t t = 0; t < num_tokens; ++t) {
    num_keys += of.positions[t] + 1 - FirstKey(of.positions[t], of.window);
  }
  const int64_t grain = Grain(items, num_keys, 4 * of.num_heads * of.head_dim);
  ForRanges(items, grain, [&](int64_t begin, int64_t end) {
    Scratch<T> own(of.head_dim);
    for (int64_t item = begin; item < end; ++item) {
      const Tile& tile = tiles[static_cast<size_t>(item / of.num_kv_heads)];
      AttendTile<T>(of, tile, item % of.num_kv_heads, own);
    }
  });
}

bool HasKernel(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values) {
  const at::ScalarType type = qkv.scalar_type();
  return IsModelType(type) && keys.scalar_type() == type && values.scalar_type() == type &&
         qkv.is_contiguous() && KvCache::KeysAreColumns(keys) && values.is_contiguous();
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
  const at::Tensor out = at::empty({qkv.size(0), num_heads * head_dim}, qkv.options());
  const Operands operands{.qkv = qkv,
                          .keys = keys,
                          .values = values,
                          .block_tables = block_tables,
                          .out = out,
                          .sequences = sequences.const_data_ptr<int64_t>(),
                          .positions = positions.const_data_ptr<int64_t>(),
                          .num_heads = num_heads,
                          .num_kv_heads = num_kv_heads,
                          .head_dim = head_dim,
                          .window = window,
                          .scoring = {static_cast<float>(scale), static_cast<float>(soft_cap)}};
  ForTypeOf(qkv, [&](auto number) { AttendAll<decltype(number)>(operands); });
  return out;
}

}  // namespace valuescope::model::cpu
