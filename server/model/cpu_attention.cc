// Attention of a CPU in float32. Up to four rows (a query head of a token each) go over the blocks
// of a sequence's cache together, so that a block's keys and values are read once for all of them.
// What is computed for a row, and in which order, depends on the row alone: on its first and last
// key and on where blocks begin, never on its company.
//
// A block has as many keys as a vector has lanes. Its keys are stored as columns (kv_cache.h), so
// the scores of a block are one vector: the sum over i of query[i] times the keys' i-th elements.
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/vectorised.h"
#include "model/cpu_kernels.h"
#include "model/kv_cache.h"
#include "model/reference.h"

namespace valuescope::model::cpu {
namespace {

static_assert(KvCache::kColumns == kLanes);
constexpr int kMostRows = 4;

// One query head of one token.
struct Row {
  const float* query;  // [head_dim]
  float* out;          // [head_dim], zero at first
  int64_t first, end;  // the keys it sees: positions first .. end - 1
  // A softmax whose maximum grows from block to block.
  float maximum = -std::numeric_limits<float>::infinity();
  float sums[kLanes] = {};  // of the weights, a lane each
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

// What a row's weights in one block are, and which of its keys they are for.
struct BlockWeights {
  float weights[kLanes];
  float rescale;  // of everything before
  int64_t begin, end;
};

template <int kRows>
VS_INLINED void Scores(const Row* rows, const float* keys, int64_t head_dim, float scale,
                       BlockWeights* out) {
  // Two sums a row: each waits for its last product.
  Lanes even[kRows] = {}, odd[kRows] = {};
  for (int64_t i = 0; i < head_dim; i += 2) {
    const Lanes first = LanesAt(keys + i * kLanes), second = LanesAt(keys + (i + 1) * kLanes);
    for (int r = 0; r < kRows; ++r) {
      even[r] += rows[r].query[i] * first;
      odd[r] += rows[r].query[i + 1] * second;
    }
  }
  for (int r = 0; r < kRows; ++r) LanesAt(out[r].weights) = (even[r] + odd[r]) * scale;
}

// From scores to weights; keys that the row does not see weigh nothing.
VS_INLINED void Weigh(Row& row, int64_t block_begin, float soft_cap, BlockWeights& block) {
  constexpr float kUnseen = -std::numeric_limits<float>::infinity();
  block.begin = std::clamp<int64_t>(row.first - block_begin, 0, kLanes);
  block.end = std::clamp<int64_t>(row.end - block_begin, block.begin, kLanes);
  block.rescale = 1;
  if (block.begin == block.end) return;
  float* scores = block.weights;
  if (soft_cap > 0) {
#pragma omp simd
    for (int j = 0; j < kLanes; ++j) scores[j] = soft_cap * Tanh(scores[j] / soft_cap);
  }
  const auto begin = static_cast<int32_t>(block.begin), end = static_cast<int32_t>(block.end);
  float maximum = row.maximum;
#pragma omp simd reduction(max : maximum)
  for (int32_t j = 0; j < kLanes; ++j) {
    const float seen = j >= begin && j < end ? scores[j] : kUnseen;
    maximum = seen > maximum ? seen : maximum;
  }
  if (maximum > row.maximum) {
    block.rescale = row.maximum == kUnseen ? 0.0f : ExpOfNonPositive(row.maximum - maximum);
    row.maximum = maximum;
  }
#pragma omp simd
  for (int32_t j = 0; j < kLanes; ++j) {
    const float weight = ExpOfNonPositive(scores[j] - maximum);
    scores[j] = j >= begin && j < end ? weight : 0.0f;
    row.sums[j] = row.sums[j] * block.rescale + scores[j];
  }
}

// out = rescale out + the weighted values, of kVectors vectors of a head's dimensions from `at` on.
// Unseen slots may hold anything and are not read.
template <int kRows, int kVectors>
VS_INLINED void AddValues(const Row* rows, const BlockWeights* blocks, const float* values,
                          int64_t stride, int64_t at) {
  Lanes sums[kRows][kVectors];
  int64_t begin = 0, end = kLanes;  // seen by all
  for (int r = 0; r < kRows; ++r) {
    begin = std::max(begin, blocks[r].begin);
    end = std::min(end, blocks[r].end);
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = LanesAt(rows[r].out + at + v * kLanes) * blocks[r].rescale;
    }
  }
  end = std::max(begin, end);
  const auto add = [&](int r, int64_t j) {
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] += blocks[r].weights[j] * LanesAt(values + j * stride + at + v * kLanes);
    }
  };
  for (int r = 0; r < kRows; ++r) {
    for (int64_t j = blocks[r].begin; j < std::min(begin, blocks[r].end); ++j) add(r, j);
  }
  for (int64_t j = begin; j < end; ++j) {
    for (int r = 0; r < kRows; ++r) add(r, j);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int64_t j = std::max(end, blocks[r].begin); j < blocks[r].end; ++j) add(r, j);
    for (int v = 0; v < kVectors; ++v) LanesAt(rows[r].out + at + v * kLanes) = sums[r][v];
  }
}

// The same for the dimensions behind the last whole vector.
template <int kRows>
VS_INLINED void AddLastValues(const Row* rows, const BlockWeights* blocks, const float* values,
                              int64_t stride, int64_t at, int64_t head_dim) {
  for (int r = 0; r < kRows; ++r) {
    for (int64_t i = at; i < head_dim; ++i) {
      float sum = rows[r].out[i] * blocks[r].rescale;
      for (int64_t j = blocks[r].begin; j < blocks[r].end; ++j) {
        sum += blocks[r].weights[j] * values[j * stride + i];
      }
      rows[r].out[i] = sum;
    }
  }
}

template <int kRows>
VS_INLINED void AttendTogether(Row* rows, const CachedHead& head, const Scoring& scoring) {
  constexpr int kWide = 4;
  int64_t first = rows[0].first, end = rows[0].end;
  for (int r = 1; r < kRows; ++r) {
    first = std::min(first, rows[r].first);
    end = std::max(end, rows[r].end);
  }
  BlockWeights blocks[kRows];
  for (int64_t b = first / kLanes; b * kLanes < end; ++b) {
    const float* values = head.values + head.blocks[b] * head.value_block;
    Scores<kRows>(rows, head.keys + head.blocks[b] * head.key_block, head.head_dim, scoring.scale,
                  blocks);
    for (int r = 0; r < kRows; ++r) Weigh(rows[r], b * kLanes, scoring.soft_cap, blocks[r]);
    int64_t at = 0;
    for (; at + kWide * kLanes <= head.head_dim; at += kWide * kLanes) {
      AddValues<kRows, kWide>(rows, blocks, values, head.value_stride, at);
    }
    for (; at + kLanes <= head.head_dim; at += kLanes) {
      AddValues<kRows, 1>(rows, blocks, values, head.value_stride, at);
    }
    AddLastValues<kRows>(rows, blocks, values, head.value_stride, at, head.head_dim);
  }
}

VS_VECTORISED void Attend(Row* rows, int64_t count, const CachedHead& head,
                          const Scoring& scoring) {
  static_assert(kMostRows == 4);
  for (int64_t r = 0; r < count; r += kMostRows) {
    switch (count - r) {
      case 1:
        AttendTogether<1>(rows + r, head, scoring);
        break;
      case 2:
        AttendTogether<2>(rows + r, head, scoring);
        break;
      case 3:
        AttendTogether<3>(rows + r, head, scoring);
        break;
      default:
        AttendTogether<kMostRows>(rows + r, head, scoring);
    }
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

// Later tokens of a prompt attend to more, so a thread's share takes items from both ends.
int64_t FromBothEnds(int64_t place, int64_t count) {
  return place % 2 == 0 ? place / 2 : count - 1 - place / 2;
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
  at::Tensor out = at::zeros({qkv.size(0), num_heads * head_dim}, qkv.options());
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
  at::parallel_for(0, items, grain, [&](int64_t begin, int64_t end) {
    std::vector<Row> rows;
    for (int64_t place = begin; place < end; ++place) {
      const int64_t item = FromBothEnds(place, items), kv_head = item % num_kv_heads;
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
      Attend(rows.data(), static_cast<int64_t>(rows.size()),
             {.keys = keys.const_data_ptr<float>() + kv_head * keys.stride(2),
              .values = values.const_data_ptr<float>() + kv_head * values.stride(2),
              .blocks = tables + sequence[tile.first_token] * block_tables.size(1),
              .key_block = keys.stride(0),
              .value_block = values.stride(0),
              .value_stride = values.stride(1),
              .head_dim = head_dim},
             scoring);
    }
  });
  return out;
}

}  // namespace valuescope::model::cpu
