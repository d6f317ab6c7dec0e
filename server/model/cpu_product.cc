// Products of a CPU in float32 with a weight that is laid out for them: y = x W^T. Every element of
// y is a sum of chains of multiply-adds, each over some hundred inputs in order, whatever the shape
// of the work: a row's bits depend on that row alone, and rounding does not grow with the inputs.
//
// The weight is stored in groups of three vectors of outputs: [groups, in, 48]. Up to eight rows go
// over a group together (24 sums in registers), input by input. Few rows are bound by the weight's
// way from memory: what comes next is fetched while this is computed, which a processor's own
// prefetching does not do over the ends of pages and groups. Many rows are bound by arithmetic.
//
// Long because the kernel, how threads share it and where its weights lie are tuned to one another.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>

#include "base/check.h"
#include "base/vectorised.h"
#include "model/architecture.h"
#include "model/cpu_kernels.h"
#include "model/vector_width.h"
#include "model/work_shares.h"

namespace valuescope::model::cpu {
namespace {

constexpr int kVectors = 3;
constexpr int64_t kGroup = kVectors * kLanes;
constexpr int64_t kMostRows = 8;
// Inputs of one chain. What a tile reads of a weight and of x then fits the nearest caches.
constexpr int64_t kMostDepth = 384;
// Tiles that go over a group one behind the other, and how much of x they take along: it stays in
// the second cache, whose other half a neighbour on the processor may be using.
constexpr int64_t kTilesAtOnce = 8;
constexpr int64_t kRowsAtOnce = kTilesAtOnce * kMostRows;
constexpr int64_t kElementsAtOnce = kRowsAtOnce * 1536;
// Below so many rows, waking other threads to arrange the rows costs more than it saves.
constexpr int64_t kRowsArrangedAlone = 32;
// Inputs from fetching an element of the weight into the first cache to its use.
constexpr int64_t kFetchDistance = 8;

// Of halved vectors, and of so many rows that it pays: half a group, the rows of a tile whose sums
// are in registers, the inputs of a piece that stays in the first cache, and how many of them go by
// between two fetches.
constexpr int64_t kHalf = kGroup / 2;
constexpr int64_t kSmallTile = 4;
constexpr int64_t kManyRows = 8;
constexpr int64_t kMostPiece = 128;
constexpr int64_t kStep = 8;

// How many of `rows` rows the next tile has.
int64_t TileRows(int64_t rows) { return std::min(rows, kMostRows); }

// The weight that comes next, of which a tile fetches `each` floats with every input.
struct Ahead {
  const float* weight;
  int64_t each;
};

// What a tile is computed from: x [depth, x_stride], of which it has some columns, and weight
// [depth, kGroup].
struct TileOperands {
  const float* x;
  int64_t x_stride;
  const float* weight;
  int64_t depth;
  bool first;
  float* y;
  int64_t y_stride;
  Ahead ahead;
};

// y [kRows, some of kGroup] becomes, or where it is not the `first` part gains, x times weight.
template <typename V, int kRows, int kVectors, int kLinesAhead>
VS_INLINED void MultiplyTile(const TileOperands& of) {
  // A copy, whose fields need not be read again after each store to y.
  const auto [x, x_stride, weight, depth, first, y, y_stride, ahead] = of;
  constexpr int kLines = (kVectors * V::kWidth + kLanes - 1) / kLanes;
  typename V::Floats sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v) sums[r][v] = typename V::Floats{};
#pragma GCC unroll 3
    for (int l = 0; l < kLines; ++l) __builtin_prefetch(y + r * y_stride + l * kLanes, 1, 3);
  }
  for (int64_t i = 0; i < depth; ++i) {
    typename V::Floats weights[kVectors];
#pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = VectorAt<V>(weight + i * kGroup + v * V::kWidth);
    }
#pragma GCC unroll 3
    for (int l = 0; l < kLines; ++l) {
      __builtin_prefetch(weight + (i + kFetchDistance) * kGroup + l * kLanes, 0, 3);
    }
#pragma GCC unroll 3
    for (int l = 0; l < kLinesAhead; ++l) {
      __builtin_prefetch(ahead.weight + i * ahead.each + l * kLanes, 0, 2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float input = x[i * x_stride + r];
#pragma GCC unroll 6
      for (int v = 0; v < kVectors; ++v) sums[r][v] += input * weights[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 6
    for (int v = 0; v < kVectors; ++v) {
      typename V::Floats& out = VectorAt<V>(y + r * y_stride + v * V::kWidth);
      out = first ? sums[r][v] : out + sums[r][v];
    }
  }
}

// Of 32 vectors of 64 bytes, 24 hold the sums of eight rows of a group.
VS_INLINED void MultiplyByWholeVectors(int64_t rows, const TileOperands& of) {
  switch (rows) {
    case 1:
      return MultiplyTile<Whole, 1, kVectors, 3>(of);
    case 2:
      return MultiplyTile<Whole, 2, kVectors, 3>(of);
    case 3:
      return MultiplyTile<Whole, 3, kVectors, 3>(of);
    case 4:
      return MultiplyTile<Whole, 4, kVectors, 3>(of);
    case 5:
      return MultiplyTile<Whole, 5, kVectors, 3>(of);
    case 6:
      return MultiplyTile<Whole, 6, kVectors, 3>(of);
    case 7:
      return MultiplyTile<Whole, 7, kVectors, 3>(of);
    default:
      if (of.ahead.each == 0) return MultiplyTile<Whole, 8, kVectors, 0>(of);
      if (of.ahead.each <= kLanes) return MultiplyTile<Whole, 8, kVectors, 1>(of);
      return MultiplyTile<Whole, 8, kVectors, 3>(of);
  }
}

// Half a group at a time.
template <int kRows>
VS_INLINED void MultiplyHalves(TileOperands of) {
  MultiplyTile<Halved, kRows, kVectors, 3>(of);
  of.weight += kGroup / 2;
  of.y += kGroup / 2;
  MultiplyTile<Halved, kRows, kVectors, 0>(of);
}

// Of 16 vectors of 32 bytes, 12 hold the sums of two rows of a group or of four rows of half of it.
VS_INLINED void MultiplyByHalvedVectors(int64_t rows, TileOperands of) {
  for (; rows > 0; rows -= 4, of.x += 4, of.y += 4 * of.y_stride) {
    switch (rows) {
      case 1:
        MultiplyTile<Halved, 1, 2 * kVectors, 3>(of);
        break;
      case 2:
        MultiplyTile<Halved, 2, 2 * kVectors, 3>(of);
        break;
      case 3:
        MultiplyHalves<3>(of);
        break;
      default:
        MultiplyHalves<4>(of);
    }
  }
}

// A chain's inputs of one block and all rows of a part, where vectors are halved and rows many.
// Every other input of a row needs a load beside those of the weight, so the weight has to come
// from the first cache: pieces of half a group stay there while all rows go over them. What the
// rows have of a chain waits in `sums` meanwhile, unrounded, so that bits are those of
// MultiplyTile.
struct ChainOperands {
  const float* x;  // of the part, in tiles of [in, rows]
  int64_t in;
  int64_t input;  // the chain's first
  int64_t rows;
  const float* weight;  // [depth, kGroup]
  int64_t depth;
  bool first;
  float* y;
  int64_t y_stride;
  float* sums;         // [rows, kHalf]
  const float* ahead;  // of the weight, `lines_ahead` lines that come next, or null
  int64_t lines_ahead;
};

struct PieceOperands {
  const float* x;
  int64_t x_stride;
  const float* weight;
  int64_t depth;
  bool begins, ends;  // the chain
  float* sums;
  bool first;
  float* y;
  int64_t y_stride;
  const float* ahead;
  int64_t lines_a_step;
};

template <int kRows>
VS_INLINED void MultiplyPiece(const PieceOperands& of) {
  const auto [x, x_stride, weight, depth, begins, ends, kept, first, y, y_stride, ahead, lines] =
      of;
  Halved::Floats sums[kRows][kVectors];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] =
          begins ? Halved::Floats{} : VectorAt<Halved>(kept + r * kHalf + v * Halved::kWidth);
    }
  }
  const auto add = [&](int64_t i) __attribute__((always_inline)) {
    Halved::Floats weights[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = VectorAt<Halved>(weight + i * kGroup + v * Halved::kWidth);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const float input = x[i * x_stride + r];
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sums[r][v] += input * weights[v];
    }
  };
  const float* fetched = ahead;
  int64_t i = 0;
  for (; i + kStep <= depth; i += kStep) {
    for (int64_t l = 0; l < lines; ++l, fetched += kLanes) __builtin_prefetch(fetched, 0, 2);
#pragma GCC unroll 8
    for (int64_t k = 0; k < kStep; ++k) add(i + k);
  }
  for (; i < depth; ++i) add(i);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      if (!ends) {
        VectorAt<Halved>(kept + r * kHalf + v * Halved::kWidth) = sums[r][v];
        continue;
      }
      Halved::Floats& out = VectorAt<Halved>(y + r * y_stride + v * Halved::kWidth);
      out = first ? sums[r][v] : out + sums[r][v];
    }
  }
}

VS_INLINED void MultiplyPieceOf(int64_t rows, const PieceOperands& of) {
  switch (rows) {
    case 1:
      return MultiplyPiece<1>(of);
    case 2:
      return MultiplyPiece<2>(of);
    case 3:
      return MultiplyPiece<3>(of);
    default:
      return MultiplyPiece<4>(of);
  }
}

VS_VECTORISED void MultiplyChain(const ChainOperands& of) {
  const int64_t pieces = at::divup(of.depth, kMostPiece), each = at::divup(of.depth, pieces);
  const int64_t small_tiles = at::divup(of.rows, kSmallTile);
  const int64_t steps = 2 * pieces * small_tiles * std::max<int64_t>(1, each / kStep);
  const int64_t lines_a_step = of.ahead == nullptr ? 0 : at::divup(of.lines_ahead, steps);
  const float* ahead = of.ahead;
  for (int64_t half = 0; half < kGroup; half += kHalf) {
    for (int64_t input = 0; input < of.depth; input += each) {
      const int64_t depth = std::min(each, of.depth - input);
      for (int64_t row = 0; row < of.rows; row += kSmallTile) {
        // In tiles of kMostRows, the last of which may have fewer.
        const int64_t tile = row / kMostRows * kMostRows;
        const int64_t x_stride = std::min(kMostRows, of.rows - tile);
        const PieceOperands piece{
            .x = of.x + tile * of.in + (of.input + input) * x_stride + row - tile,
            .x_stride = x_stride,
            .weight = of.weight + input * kGroup + half,
            .depth = depth,
            .begins = input == 0,
            .ends = input + depth == of.depth,
            .sums = of.sums + row * kHalf,
            .first = of.first,
            .y = of.y + row * of.y_stride + half,
            .y_stride = of.y_stride,
            .ahead = ahead,
            .lines_a_step = lines_a_step};
        MultiplyPieceOf(std::min(kSmallTile, of.rows - row), piece);
        ahead += depth / kStep * lines_a_step * kLanes;
      }
    }
  }
}

VS_VECTORISED void Multiply(int64_t rows, const TileOperands& of, bool by_whole_vectors) {
  if (by_whole_vectors) return MultiplyByWholeVectors(rows, of);
  MultiplyByHalvedVectors(rows, of);
}

// x [rows, in], its rows `x_stride` apart, -> [in, rows] for a tile's rows.
VS_VECTORISED void Arrange(const float* x, int64_t x_stride, int64_t rows, int64_t in, float* out) {
  using Four __attribute__((vector_size(16), aligned(4), may_alias)) = float;
  int64_t i = 0;
  if (rows % 4 == 0) {
    for (; i + 4 <= in; i += 4) {
      for (int64_t r = 0; r < rows; r += 4) {
        const auto row = [&](int64_t k) -> const Four& {
          return *reinterpret_cast<const Four*>(x + (r + k) * x_stride + i);
        };
        const auto column = [&](int64_t k) -> Four& {
          return *reinterpret_cast<Four*>(out + (i + k) * rows + r);
        };
        const Four low01 = __builtin_shufflevector(row(0), row(1), 0, 4, 1, 5);
        const Four high01 = __builtin_shufflevector(row(0), row(1), 2, 6, 3, 7);
        const Four low23 = __builtin_shufflevector(row(2), row(3), 0, 4, 1, 5);
        const Four high23 = __builtin_shufflevector(row(2), row(3), 2, 6, 3, 7);
        column(0) = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
        column(1) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
        column(2) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
        column(3) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
      }
    }
  }
  for (; i < in; ++i) {
    for (int64_t r = 0; r < rows; ++r) out[i * rows + r] = x[r * x_stride + i];
  }
}

// The inputs of `inputs` of x [num_rows, in] as Arrange has them, one tile of [in, rows] behind the
// other.
void ArrangeTiles(const float* x, int64_t num_rows, int64_t in, const Range& inputs, float* out) {
  for (int64_t row = 0, rows = 0; row < num_rows; row += rows) {
    rows = TileRows(num_rows - row);
    Arrange(x + row * in + inputs.first, in, rows, inputs.size(),
            out + row * in + inputs.first * rows);
  }
}

// The same for all of x [rows, in], by all threads.
at::Tensor Arranged(const at::Tensor& x) {
  const int64_t num_rows = x.size(0), in = x.size(1);
  if (num_rows == 1) return x;
  at::Tensor arranged = at::empty_like(x);
  const float* from = x.const_data_ptr<float>();
  float* to = arranged.mutable_data_ptr<float>();
  const int64_t tiles = at::divup(num_rows, kMostRows);
  const int64_t grain = num_rows <= kRowsArrangedAlone ? tiles : 1;
  ForRanges(tiles, grain, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kMostRows, last = std::min(num_rows, end * kMostRows);
    ArrangeTiles(from + first * in, last - first, in, {0, in}, to + first * in);
  });
  return arranged;
}

// One product, or where there is a second weight, what an MLP's neurons are: activation(x W^T) *
// (x U^T). x [rows, in] is in tiles of [in, rows] already where `is_arranged`.
struct Operands {
  int64_t rows = 0, in = 0, out;
  const float* x = nullptr;
  bool is_arranged = false;
  const float* weight;
  const float* up = nullptr;
  Activation activation = Activation::kSilu;
  float* y = nullptr;

  int64_t groups() const { return at::divup(out, kGroup); }
  int64_t tiles() const { return at::divup(rows, kMostRows); }
  // Parts of at most kTilesAtOnce tiles; part i begins at tile FirstTile(i).
  int64_t parts() const { return at::divup(tiles(), kTilesAtOnce); }
  int64_t FirstTile(int64_t part) const { return tiles() * part / parts(); }
  Range Rows(int64_t part) const {
    return {FirstTile(part) * kMostRows, std::min(rows, FirstTile(part + 1) * kMostRows)};
  }
  // Evenly divided, so that no chain is a short one.
  int64_t depth() const { return at::divup(in, at::divup(in, kMostDepth)); }
  // The inputs that a part's rows take along from group to group, in whole chains.
  int64_t span(int64_t part) const {
    const int64_t chains = kElementsAtOnce / (Rows(part).size() * depth());
    return std::min(in, depth() * std::max<int64_t>(1, chains));
  }
  // A group has a block of each weight; blocks are numbered group by group.
  int64_t weights() const { return up == nullptr ? 1 : 2; }
  const float* Block(int64_t block) const {
    return (block % weights() == 0 ? weight : up) + block / weights() * in * kGroup;
  }
};

// What a thread has of its own.
class Scratch {
 public:
  // Groups of an MLP's neurons that wait for all of their inputs.
  static constexpr int64_t kMostGroups = 8;

  explicit Scratch(const Operands& of) : of_(of) {}

  // A part's rows in tiles of [in, rows], of which at least the inputs before `end` are there.
  const float* Arranged(int64_t part, int64_t end) {
    const Range rows = of_.Rows(part);
    const float* x = of_.x + rows.first * of_.in;
    if (of_.is_arranged) return x;
    if (part != part_) arranged_ = 0;
    part_ = part;
    if (x_ == nullptr) x_ = Lines(kRowsAtOnce * of_.in);
    if (arranged_ < end) {
      ArrangeTiles(x, rows.size(), of_.in, {arranged_, end}, x_[0].floats);
      arranged_ = end;
    }
    return x_[0].floats;
  }

  // What rows have of a chain, [kRowsAtOnce, kHalf].
  float* Sums() {
    if (sums_ == nullptr) sums_ = Lines(kRowsAtOnce * kHalf);
    return sums_[0].floats;
  }

  // Room for a block's outputs, [kRowsAtOnce, kGroup].
  float* Held(int64_t block) {
    constexpr int64_t kBlock = kRowsAtOnce * kGroup;
    if (held_ == nullptr) held_ = Lines(of_.weights() * kMostGroups * kBlock);
    return held_[block * kBlock / kLanes].floats;
  }

 private:
  // Of a cache.
  struct alignas(kLanes * sizeof(float)) Line {
    float floats[kLanes];
  };

  static std::unique_ptr<Line[]> Lines(int64_t floats) {
    return std::make_unique_for_overwrite<Line[]>(static_cast<size_t>(at::divup(floats, kLanes)));
  }

  const Operands& of_;
  std::unique_ptr<Line[]> x_, sums_, held_;
  int64_t part_ = -1, arranged_ = 0;  // what x_ has: the inputs before arranged_
};

// What `inputs` of x add to one block's outputs, y [rows, kGroup]. x is in tiles of [in, rows].
// `next` is what of the weight comes after it, or null.
void MultiplyBlock(const Operands& of, const float* x, int64_t num_rows, const Range& inputs,
                   const float* weight, const float* next, float* y, int64_t y_stride,
                   Scratch& own) {
  const int64_t num_tiles = at::divup(num_rows, kMostRows);
  for (int64_t input = inputs.first; input < inputs.end; input += of.depth()) {
    const int64_t depth = std::min(of.depth(), inputs.end - input);
    const float* behind = input + depth < inputs.end ? weight + (input + depth) * kGroup : next;
    if (num_rows >= kManyRows && !HasWholeVectors()) {
      MultiplyChain({.x = x,
                     .in = of.in,
                     .input = input,
                     .rows = num_rows,
                     .weight = weight + input * kGroup,
                     .depth = depth,
                     .first = input == 0,
                     .y = y,
                     .y_stride = y_stride,
                     .sums = own.Sums(),
                     .ahead = behind,
                     .lines_ahead = depth * kVectors});
      continue;
    }
    // Every tile fetches its share.
    Ahead ahead{weight, 0};
    if (behind != nullptr) ahead = {behind, at::divup(kGroup, num_tiles)};
    for (int64_t row = 0, rows = 0; row < num_rows; row += rows) {
      rows = TileRows(num_rows - row);
      const TileOperands tile{.x = x + row * of.in + input * rows,
                              .x_stride = rows,
                              .weight = weight + input * kGroup,
                              .depth = depth,
                              .first = input == 0,
                              .y = y + row * y_stride,
                              .y_stride = y_stride,
                              .ahead = ahead};
      Multiply(rows, tile, HasWholeVectors());
      ahead.weight += depth * ahead.each;
    }
  }
}

// Of a group that is only partly in y: its rows [rows, kGroup] in `whole` to y [rows, width].
void CopyPart(const float* whole, int64_t rows, int64_t width, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(whole + r * kGroup, width, y + r * y_stride);
  }
}

// A part's rows and the groups of `groups`, whose outputs are neurons' at most
// Scratch::kMostGroups. `following` is what of a weight comes after them, or null.
void MultiplyPart(const Operands& of, int64_t part, const Range& groups, const float* following,
                  Scratch& own) {
  const Range rows = of.Rows(part);
  const int64_t span = of.span(part), weights = of.weights();
  const int64_t first = groups.first * weights, end = groups.end * weights;
  for (int64_t input = 0; input < of.in; input += span) {
    const Range inputs{input, std::min(of.in, input + span)};
    const bool last = inputs.end == of.in;
    const float* x = own.Arranged(part, inputs.end);
    for (int64_t block = first; block < end; ++block) {
      const int64_t column = block / weights * kGroup, width = std::min(kGroup, of.out - column);
      const float* next = following;
      if (block + 1 < end) {
        next = of.Block(block + 1) + input * kGroup;
      } else if (!last) {
        next = of.Block(first) + inputs.end * kGroup;
      }
      float* y = of.y + rows.first * of.out + column;
      if (weights == 1 && width == kGroup) {
        MultiplyBlock(of, x, rows.size(), inputs, of.Block(block), next, y, of.out, own);
        continue;
      }
      float* held = own.Held(weights == 1 ? 0 : block - first);
      MultiplyBlock(of, x, rows.size(), inputs, of.Block(block), next, held, kGroup, own);
      if (!last) continue;
      if (weights == 1) {
        CopyPart(held, rows.size(), width, y, of.out);
      } else if (block % 2 == 1) {
        GateMultiplyRows(of.activation, own.Held(block - 1 - first), held, kGroup, rows.size(),
                         width, y, of.out);
      }
    }
  }
}

// What `take` gives of the groups of all parts, which are numbered part by part.
template <typename Take>
void MultiplyShare(const Operands& of, const Take& take) {
  Scratch own(of);
  const int64_t groups = of.groups();
  for (Taken taken = take(); taken.items.size() > 0; taken = take()) {
    Range& items = taken.items;
    while (items.size() > 0) {
      const int64_t part = items.first / groups, first = items.first % groups;
      int64_t end = std::min(groups, first + items.size());
      if (of.up != nullptr) {
        end = std::min(end, first + (of.span(part) == of.in ? 1 : Scratch::kMostGroups));
      }
      items.first += end - first;
      const bool goes_on = items.size() > 0 || taken.goes_on;
      const float* following = goes_on ? of.Block(items.first % groups * of.weights()) : nullptr;
      MultiplyPart(of, part, {first, end}, following, own);
    }
  }
}

// Memory for packed weights, which share stretches of it: a page of 2 MiB, of which fewer are to be
// looked up, may then hold the end of one weight and the beginning of another. A stretch lives as
// long as a weight in it; what no weight has used yet takes no memory.
class Stretch {
 public:
  static constexpr size_t kBytes = 64 << 20;

  explicit Stretch(size_t bytes)
      : bytes_(bytes),
        memory_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    madvise(memory_, bytes_, MADV_HUGEPAGE);  // where the system gives them
  }
  ~Stretch() { munmap(memory_, bytes_); }
  Stretch(const Stretch&) = delete;
  Stretch& operator=(const Stretch&) = delete;

  // Null where there is no room. A weight's groups are of whole cache lines, so each begins at one.
  float* Take(size_t bytes) {
    if (bytes > bytes_ - used_) return nullptr;
    char* begin = static_cast<char*>(memory_) + used_;
    used_ += bytes;
    return reinterpret_cast<float*>(begin);
  }

 private:
  const size_t bytes_;
  size_t used_ = 0;
  void* const memory_;
};

// Uninitialised; throws std::bad_alloc.
at::Tensor EmptyWeight(at::IntArrayRef sizes) {
  static std::mutex mutex;
  static std::weak_ptr<Stretch> current;
  const size_t bytes = static_cast<size_t>(c10::multiply_integers(sizes)) * sizeof(float);
  const std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<Stretch> stretch = current.lock();
  float* memory = stretch != nullptr ? stretch->Take(bytes) : nullptr;
  if (memory == nullptr) {
    stretch = std::make_shared<Stretch>(std::max(bytes, Stretch::kBytes));
    memory = stretch->Take(bytes);
    if (bytes < Stretch::kBytes) current = stretch;
  }
  return at::from_blob(
      memory, sizes, [stretch](void*) {}, at::kFloat);
}

}  // namespace

int64_t PackedBytes(int64_t out, int64_t in) {
  return at::divup(out, kGroup) * in * kGroup * static_cast<int64_t>(sizeof(float));
}

at::Tensor PackForProduct(const at::Tensor& weight) {
  VS_CHECK(weight.scalar_type() == at::kFloat && weight.is_contiguous());
  const int64_t out = weight.size(0), in = weight.size(1);
  const int64_t groups = at::divup(out, kGroup);
  at::Tensor packed = EmptyWeight({groups, in, kGroup});
  const float* source = weight.const_data_ptr<float>();
  float* data = packed.mutable_data_ptr<float>();
  at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t group = begin; group < end; ++group) {
      const int64_t width = std::min(kGroup, out - group * kGroup);
      for (int64_t i = 0; i < in; ++i) {
        float* row = data + (group * in + i) * kGroup;
        for (int64_t o = 0; o < width; ++o) row[o] = source[(group * kGroup + o) * in + i];
        std::fill(row + width, row + kGroup, 0.0f);
      }
    }
  });
  return packed;
}

namespace {

// y of what `of` has of the weights; what it has of x and y is set here.
at::Tensor Multiplied(const at::Tensor& x, Operands of) {
  VS_CHECK(x.is_contiguous());
  at::Tensor y = at::empty({x.size(0), of.out}, x.options());
  of.rows = x.size(0);
  of.in = x.size(1);
  of.y = y.mutable_data_ptr<float>();
  // With a part for every thread, each arranges what it is about to multiply, in its caches.
  of.is_arranged = of.rows == 1 || of.parts() < at::get_num_threads();
  const at::Tensor rows = of.is_arranged ? Arranged(x) : x;
  of.x = rows.const_data_ptr<float>();
  ShareWork(of.parts() * of.groups(), 1, [&](const auto& take) { MultiplyShare(of, take); });
  return y;
}

void CheckPacked(const at::Tensor& packed, const at::Tensor& x, int64_t out_features) {
  VS_CHECK(packed.size(0) == at::divup(out_features, kGroup) && packed.size(1) == x.size(1));
}

}  // namespace

at::Tensor Product(const at::Tensor& x, const at::Tensor& packed, int64_t out_features) {
  CheckPacked(packed, x, out_features);
  return Multiplied(x, {.out = out_features, .weight = packed.const_data_ptr<float>()});
}

at::Tensor GatedProduct(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& up,
                        int64_t out_features, int64_t activation) {
  CheckPacked(gate, x, out_features);
  CheckPacked(up, x, out_features);
  return Multiplied(x, {.out = out_features,
                        .weight = gate.const_data_ptr<float>(),
                        .up = up.const_data_ptr<float>(),
                        .activation = static_cast<Activation>(activation)});
}

}  // namespace valuescope::model::cpu
