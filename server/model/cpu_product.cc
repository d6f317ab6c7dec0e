// Products of a CPU in float32 with a weight that is laid out for them: y = x W^T. Every element of
// y is a sum of chains of multiply-adds, each over some hundred inputs in order, whatever the shape
// of the work: a row's bits depend on that row alone, and rounding does not grow with the inputs.
//
// The weight is stored in groups of three vectors of outputs: [groups, in, 48]. Up to eight rows go
// over a group together (24 sums in registers), input by input. Few rows are bound by the weight's
// way from memory: what comes next is fetched while this is computed, which a processor's own
// prefetching does not do over the ends of pages and groups. Many rows are bound by arithmetic.
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
#include "model/cpu_kernels.h"

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

// How many of `rows` rows the next tile has.
int64_t TileRows(int64_t rows) { return std::min(rows, kMostRows); }

// The weight that comes next, of which a tile fetches `each` floats with every input.
struct Ahead {
  const float* weight;
  int64_t each;
};

// y [kRows, kGroup] becomes, or where it is not the `first` part gains, x [depth, kRows] times
// weight [depth, kGroup].
template <int kRows, int kLinesAhead>
VS_INLINED void MultiplyTile(const float* x, const float* weight, int64_t depth, bool first,
                             float* y, int64_t y_stride, Ahead ahead) {
  Lanes sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = Lanes{};
      __builtin_prefetch(y + r * y_stride + v * kLanes, 1, 3);
    }
  }
  for (int64_t i = 0; i < depth; ++i) {
    Lanes weights[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = LanesAt(weight + i * kGroup + v * kLanes);
      __builtin_prefetch(weight + (i + kFetchDistance) * kGroup + v * kLanes, 0, 3);
      if (v < kLinesAhead) __builtin_prefetch(ahead.weight + i * ahead.each + v * kLanes, 0, 2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float input = x[i * kRows + r];
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) sums[r][v] += input * weights[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      Lanes& out = LanesAt(y + r * y_stride + v * kLanes);
      out = first ? sums[r][v] : out + sums[r][v];
    }
  }
}

VS_VECTORISED void Multiply(int64_t rows, const float* x, const float* weight, int64_t depth,
                            bool first, float* y, int64_t y_stride, Ahead ahead) {
  switch (rows) {
    case 1:
      return MultiplyTile<1, 3>(x, weight, depth, first, y, y_stride, ahead);
    case 2:
      return MultiplyTile<2, 3>(x, weight, depth, first, y, y_stride, ahead);
    case 3:
      return MultiplyTile<3, 3>(x, weight, depth, first, y, y_stride, ahead);
    case 4:
      return MultiplyTile<4, 3>(x, weight, depth, first, y, y_stride, ahead);
    case 5:
      return MultiplyTile<5, 3>(x, weight, depth, first, y, y_stride, ahead);
    case 6:
      return MultiplyTile<6, 3>(x, weight, depth, first, y, y_stride, ahead);
    case 7:
      return MultiplyTile<7, 3>(x, weight, depth, first, y, y_stride, ahead);
    default:
      if (ahead.each == 0) {
        return MultiplyTile<8, 0>(x, weight, depth, first, y, y_stride, ahead);
      }
      if (ahead.each <= kLanes) {
        return MultiplyTile<8, 1>(x, weight, depth, first, y, y_stride, ahead);
      }
      return MultiplyTile<8, 3>(x, weight, depth, first, y, y_stride, ahead);
  }
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

// x as Arrange has it, one tile behind the other.
void ArrangeTiles(const float* x, int64_t x_stride, int64_t num_rows, int64_t in, float* out) {
  for (int64_t row = 0, rows = 0; row < num_rows; row += rows) {
    rows = TileRows(num_rows - row);
    Arrange(x + row * x_stride, x_stride, rows, in, out + row * in);
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
  at::parallel_for(0, tiles, grain, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kMostRows, last = std::min(num_rows, end * kMostRows);
    ArrangeTiles(from + first * in, in, last - first, in, to + first * in);
  });
  return arranged;
}

struct Range {
  int64_t first, end;

  int64_t size() const { return end - first; }
};

// One product. x [rows, in] is in tiles of [in, rows] already where `is_arranged`.
struct Operands {
  int64_t rows, in, out;
  const float* x;
  bool is_arranged;
  const float* weight;
  float* y;

  int64_t groups() const { return at::divup(out, kGroup); }
  int64_t tiles() const { return at::divup(rows, kMostRows); }
  // Parts of at most kTilesAtOnce tiles; part i begins at tile FirstTile(i).
  int64_t parts() const { return at::divup(tiles(), kTilesAtOnce); }
  int64_t FirstTile(int64_t part) const { return tiles() * part / parts(); }
  // Evenly divided, so that no chain is a short one.
  int64_t depth() const { return at::divup(in, at::divup(in, kMostDepth)); }
  // The inputs that `rows` rows take along, in whole chains.
  int64_t span(int64_t rows) const {
    return std::min(in, depth() * std::max<int64_t>(1, kElementsAtOnce / (rows * depth())));
  }
};

// Rows in tiles that have the inputs of `inputs`.
struct Tiles {
  const float* x;
  int64_t rows;
  Range inputs;
};

// What `inputs` of the tiles' rows add to one group's outputs, y [rows, kGroup]. `next` is what of
// the weight comes after it, or null.
void MultiplyGroup(const Tiles& tiles, const Range& inputs, int64_t most_depth, const float* weight,
                   const float* next, float* y, int64_t y_stride) {
  const int64_t num_tiles = at::divup(tiles.rows, kMostRows);
  for (int64_t input = inputs.first; input < inputs.end; input += most_depth) {
    const int64_t depth = std::min(most_depth, inputs.end - input);
    const float* behind = input + depth < inputs.end ? weight + (input + depth) * kGroup : next;
    // Every tile fetches its share.
    Ahead ahead{weight, 0};
    if (behind != nullptr) ahead = {behind, at::divup(kGroup, num_tiles)};
    for (int64_t row = 0, rows = 0; row < tiles.rows; row += rows) {
      rows = TileRows(tiles.rows - row);
      const float* x = tiles.x + row * tiles.inputs.size() + (input - tiles.inputs.first) * rows;
      Multiply(rows, x, weight + input * kGroup, depth, input == 0, y + row * y_stride, y_stride,
               ahead);
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

// A part's rows and the groups of `groups`. `arranged` has room for what rows take along, where
// nobody arranged x before.
void MultiplyPart(const Operands& of, int64_t part, const Range& groups, float* arranged) {
  const int64_t first = of.FirstTile(part) * kMostRows;
  const int64_t rows = std::min(of.rows, of.FirstTile(part + 1) * kMostRows) - first;
  const int64_t span = of.span(rows);
  const float* x = of.x + first * of.in;
  float padded[kRowsAtOnce * kGroup];  // the last group's outputs, where it has fewer
  for (int64_t input = 0; input < of.in; input += span) {
    const Range inputs{input, std::min(of.in, input + span)};
    if (!of.is_arranged) ArrangeTiles(x + input, of.in, rows, inputs.size(), arranged);
    const Tiles tiles = of.is_arranged ? Tiles{x, rows, {0, of.in}} : Tiles{arranged, rows, inputs};
    for (int64_t group = groups.first; group < groups.end; ++group) {
      const float* weight = of.weight + group * of.in * kGroup;
      const float* next = group + 1 < groups.end ? weight + (of.in + input) * kGroup : nullptr;
      const int64_t column = group * kGroup, width = std::min(kGroup, of.out - column);
      float* y = of.y + first * of.out + column;
      if (width == kGroup) {
        MultiplyGroup(tiles, inputs, of.depth(), weight, next, y, of.out);
      } else {
        MultiplyGroup(tiles, inputs, of.depth(), weight, next, padded, kGroup);
        if (inputs.end == of.in) CopyPart(padded, rows, width, y, of.out);
      }
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

at::Tensor Product(const at::Tensor& x, const at::Tensor& packed, int64_t out_features) {
  at::Tensor y = at::empty({x.size(0), out_features}, x.options());
  Operands of{.rows = x.size(0),
              .in = x.size(1),
              .out = out_features,
              .x = x.const_data_ptr<float>(),
              .is_arranged = false,
              .weight = packed.const_data_ptr<float>(),
              .y = y.mutable_data_ptr<float>()};
  const int64_t groups = of.groups();
  VS_CHECK(packed.size(0) == groups && packed.size(1) == of.in && x.is_contiguous());
  // With a part for every thread, each arranges what it is about to multiply, in its caches.
  at::Tensor arranged;
  if (of.parts() < at::get_num_threads()) {
    arranged = Arranged(x);
    of.x = arranged.const_data_ptr<float>();
    of.is_arranged = true;
  }
  at::parallel_for(0, of.tiles() * groups, 1, [&](int64_t begin, int64_t end) {
    std::unique_ptr<float[]> own;
    if (!of.is_arranged) own.reset(new float[std::min(kElementsAtOnce, kRowsAtOnce * of.in)]);
    for (int64_t part = 0; part < of.parts(); ++part) {
      const int64_t first = of.FirstTile(part), tiles = of.FirstTile(part + 1) - first;
      const auto group_at = [&](int64_t item) {
        return std::clamp<int64_t>(item - first * groups, 0, tiles * groups) / tiles;
      };
      const Range taken{group_at(begin), group_at(end)};
      if (taken.size() > 0) MultiplyPart(of, part, taken, own.get());
    }
  });
  return y;
}

}  // namespace valuescope::model::cpu
