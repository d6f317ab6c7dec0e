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
constexpr int64_t kMostDepth = 320;
// Rows whose inputs fit the second cache beside it.
constexpr int64_t kRowsAtOnce = 256;
// Below so many rows, waking other threads to arrange the rows costs more than it saves.
constexpr int64_t kRowsArrangedAlone = 32;
// Inputs from fetching an element of the weight into the first cache to its use.
constexpr int64_t kFetchDistance = 8;

// The most rows, a power of two, that a tile of at most `rows` has.
int64_t TileRows(int64_t rows) {
  if (rows >= kMostRows) return kMostRows;
  return rows >= 4 ? 4 : rows >= 2 ? 2 : 1;
}

// What a tile may fetch for the one behind it: line i of `lines` floats apart.
struct Ahead {
  const float* weight;
  int64_t lines;
};

// y [kRows, kGroup] becomes, or where it is not the `first` part gains, x [depth, kRows] times
// weight [depth, kGroup].
template <int kRows, bool kFetchesAhead>
VS_INLINED void MultiplyTile(const float* x, const float* weight, int64_t depth, bool first,
                             float* y, int64_t y_stride, Ahead ahead) {
  Lanes sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] = Lanes{};
    }
  }
  for (int64_t i = 0; i < depth; ++i) {
    Lanes weights[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = LanesAt(weight + i * kGroup + v * kLanes);
      __builtin_prefetch(weight + (i + kFetchDistance) * kGroup + v * kLanes, 0, 3);
      if (kFetchesAhead) __builtin_prefetch(ahead.weight + i * ahead.lines + v * kLanes, 0, 2);
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
      return MultiplyTile<1, true>(x, weight, depth, first, y, y_stride, ahead);
    case 2:
      return MultiplyTile<2, true>(x, weight, depth, first, y, y_stride, ahead);
    case 4:
      return MultiplyTile<4, true>(x, weight, depth, first, y, y_stride, ahead);
    default:
      if (ahead.lines == 0) {
        return MultiplyTile<8, false>(x, weight, depth, first, y, y_stride, ahead);
      }
      return MultiplyTile<8, true>(x, weight, depth, first, y, y_stride, ahead);
  }
}

// x [rows, in] -> [in, rows] for a tile's rows.
VS_VECTORISED void Arrange(const float* x, int64_t rows, int64_t in, float* out) {
  using Four __attribute__((vector_size(16), aligned(4), may_alias)) = float;
  int64_t i = 0;
  if (rows % 4 == 0) {
    for (; i + 4 <= in; i += 4) {
      for (int64_t r = 0; r < rows; r += 4) {
        const auto row = [&](int64_t k) -> const Four& {
          return *reinterpret_cast<const Four*>(x + (r + k) * in + i);
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
    for (int64_t r = 0; r < rows; ++r) out[i * rows + r] = x[r * in + i];
  }
}

// Every tile's rows as Arrange has them, one tile behind the other. [rows, in]
at::Tensor Arranged(const at::Tensor& x) {
  const int64_t num_rows = x.size(0), in = x.size(1);
  if (num_rows == 1) return x;
  at::Tensor arranged = at::empty_like(x);
  const float* from = x.const_data_ptr<float>();
  float* to = arranged.mutable_data_ptr<float>();
  const int64_t tiles = at::divup(num_rows, kMostRows);
  const int64_t grain = num_rows <= kRowsArrangedAlone ? tiles : 1;
  at::parallel_for(0, tiles, grain, [&](int64_t begin, int64_t end) {
    const int64_t last = std::min(num_rows, end * kMostRows);
    for (int64_t row = begin * kMostRows, rows = 0; row < last; row += rows) {
      rows = TileRows(last - row);
      Arrange(from + row * in, rows, in, to + row * in);
    }
  });
  return arranged;
}

// The sizes of one product.
struct Shape {
  int64_t rows, in, out;

  int64_t groups() const { return at::divup(out, kGroup); }
  // Evenly divided, so that no part is a short one.
  int64_t depth() const { return at::divup(in, at::divup(in, kMostDepth)); }
};

// The rows first .. end - 1 of one group's outputs. `next` is the group that this thread takes
// next, or null.
void MultiplyGroup(const Shape& shape, const float* arranged, const float* weight, int64_t first,
                   int64_t end, const float* next, float* y, int64_t y_stride) {
  const int64_t most_depth = shape.depth(), tiles = at::divup(end - first, kMostRows);
  for (int64_t input = 0; input < shape.in; input += most_depth) {
    const int64_t depth = std::min(most_depth, shape.in - input);
    const bool last = input + depth == shape.in;
    const float* behind = last ? next : weight + (input + depth) * kGroup;
    int64_t tile = 0;
    for (int64_t row = first, rows = 0; row < end; row += rows, ++tile) {
      rows = TileRows(end - row);
      // One tile fetches all of what is next, the first two of several half of it each.
      Ahead ahead{weight, 0};
      if (behind != nullptr && tiles == 1 && tile == 0) ahead = {behind, kGroup};
      if (behind != nullptr && tiles > 1 && tile < 2) {
        ahead = {behind + tile * (depth / 2) * kGroup, kGroup / 2};
      }
      Multiply(rows, arranged + row * shape.in + input * rows, weight + input * kGroup, depth,
               input == 0, y + (row - first) * y_stride, y_stride, ahead);
    }
  }
}

// Of a group that is only partly in y: its rows [rows, kGroup] in `whole` to y [rows, width].
void CopyPart(const float* whole, int64_t rows, int64_t width, float* y, int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(whole + r * kGroup, width, y + r * y_stride);
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
  const Shape shape{x.size(0), x.size(1), out_features};
  VS_CHECK(packed.size(0) == shape.groups() && packed.size(1) == shape.in && x.is_contiguous());
  at::Tensor y = at::empty({shape.rows, shape.out}, x.options());
  const at::Tensor arranged = Arranged(x);
  const float* from = arranged.const_data_ptr<float>();
  const float* weight = packed.const_data_ptr<float>();
  float* result = y.mutable_data_ptr<float>();
  const int64_t groups = shape.groups();
  const int64_t parts = at::divup(shape.rows, kRowsAtOnce);
  at::parallel_for(0, parts * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t group = item % groups, column = group * kGroup;
      const int64_t first = item / groups * kRowsAtOnce;
      const int64_t last = std::min(shape.rows, first + kRowsAtOnce);
      const auto weight_of = [&](int64_t of) { return weight + of * shape.in * kGroup; };
      const float* next = item + 1 < end ? weight_of((item + 1) % groups) : nullptr;
      const int64_t width = std::min(kGroup, shape.out - column);
      float* own = result + first * shape.out + column;
      if (width == kGroup) {
        MultiplyGroup(shape, from, weight_of(group), first, last, next, own, shape.out);
      } else {
        float whole[kRowsAtOnce * kGroup];
        MultiplyGroup(shape, from, weight_of(group), first, last, next, whole, kGroup);
        CopyPart(whole, last - first, width, own, shape.out);
      }
    }
  });
  return y;
}

}  // namespace valuescope::model::cpu
