// The vectorised kernels of a CPU, which compute in float32 whatever the type. A token's result
// never depends on the tokens beside it: work is split by token and head, and every sum runs in an
// order that the token alone decides. Long because there are many operators, each a few loops; the
// two that are more, attention and products, have files of their own.
#include "model/cpu_kernels.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/vectorised.h"
#include "model/architecture.h"
#include "model/half_types.h"
#include "model/reference.h"
#include "model/step.h"
#include "model/vector_width.h"
#include "model/work_shares.h"

namespace valuescope::model::cpu {
namespace {

// --- Loops over one row
// ---------------------------------------------------------------------------

VS_VECTORISED float SumOfSquares(const float* x, int64_t width) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
  return sum;
}

VS_VECTORISED void ScaleByWeight(const float* x, const float* weight, float scale, int64_t width,
                                 float* out) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = weight[i] * (x[i] * scale);
}

VS_VECTORISED void RotateHead(float* head, const float* cosine, const float* sine, int64_t half) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float real = head[i], imaginary = head[half + i];
    head[i] = real * cosine[i] - imaginary * sine[i];
    head[half + i] = imaginary * cosine[i] + real * sine[i];
  }
}

VS_VECTORISED void AddTo(float* x, const float* row, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) x[i] += row[i];
}

VS_VECTORISED void ScaleOrSetRow(float* x, const float* factors, const float* values,
                                 int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) x[i] = factors[i] != 0 ? x[i] * factors[i] : values[i];
}

VS_VECTORISED float Dot(const float* x, const float* y, int64_t width) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += x[i] * y[i];
  return sum;
}

VS_VECTORISED void AddMultiple(float* x, float factor, const float* row, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) x[i] += factor * row[i];
}

// What a sum takes of rows at a time: four lines of a cache.
constexpr int64_t kTappedColumns = 64;

// sum [width] += the rows of x, `stride` apart, that `tokens` [count] names, one after another.
// width is at most kTappedColumns, whose sums stay in registers.
VS_VECTORISED void AddRowsToDouble(double* sum, const float* x, int64_t stride,
                                   const int64_t* tokens, int64_t count, int64_t width) {
  using Sums __attribute__((vector_size(kLanes * sizeof(double)), aligned(8), may_alias)) = double;
  constexpr int kVectors = kTappedColumns / kLanes;
  constexpr int64_t kAhead = 8;
  if (width < kTappedColumns) {
    for (int64_t j = 0; j < count; ++j) {
      const float* row = x + tokens[j] * stride;
      for (int64_t i = 0; i < width; ++i) sum[i] += static_cast<double>(row[i]);
    }
    return;
  }
  Sums sums[kVectors];
  const auto place = [sum](int v) -> Sums& { return *reinterpret_cast<Sums*>(sum + v * kLanes); };
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) sums[v] = place(v);
  for (int64_t j = 0; j < count; ++j) {
    const float* ahead = x + tokens[std::min(count - 1, j + kAhead)] * stride;
    const float* row = x + tokens[j] * stride;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      __builtin_prefetch(ahead + v * kLanes, 0, 3);
      sums[v] += __builtin_convertvector(LanesAt(row + v * kLanes), Sums);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) place(v) = sums[v];
}

// The same for rows of a half type, some of which are widened at a time.
template <typename T>
void AddRowsToDouble(double* sum, const T* x, int64_t stride, const int64_t* tokens, int64_t count,
                     int64_t width) {
  constexpr int64_t kRows = 32;
  float wide[kRows * kTappedColumns];
  int64_t in_order[kRows];
  std::iota(in_order, in_order + kRows, 0);
  for (int64_t first = 0; first < count; first += kRows) {
    const int64_t rows = std::min(kRows, count - first);
    for (int64_t j = 0; j < rows; ++j) {
      Widen(x + tokens[first + j] * stride, width, wide + j * width);
    }
    AddRowsToDouble(sum, wide, width, in_order, rows, width);
  }
}

// By the exponential of a non-positive number, so that nothing overflows.
VS_INLINED float Sigmoid(float x) {
  const float e = ExpOfNonPositive(-std::fabs(x));
  return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

template <typename V>
VS_INLINED void TakeSigmoid(typename V::Floats& x) {
  using Floats = typename V::Floats;
  Floats e = x < 0 ? x : -x;
  TakeExpOfNonPositive<V>(e);
  x = (x >= 0 ? Floats{} + 1.0f : e) / (1.0f + e);
}

struct Silu {
  VS_INLINED float operator()(float x) const { return x * Sigmoid(x); }
  template <typename V>
  VS_INLINED void Take(typename V::Floats& x) const {
    typename V::Floats sigmoid = x;
    TakeSigmoid<V>(sigmoid);
    x = x * sigmoid;
  }
};

// The tanh form of GELU is x sigmoid(2 z), z = sqrt(2 / pi) (x + .044715 x^3).
struct GeluTanh {
  static constexpr float kTwice = 1.5957691216057308f;
  VS_INLINED float operator()(float x) const {
    return x * Sigmoid(kTwice * (x + 0.044715f * x * x * x));
  }
  template <typename V>
  VS_INLINED void Take(typename V::Floats& x) const {
    typename V::Floats sigmoid = kTwice * (x + 0.044715f * x * x * x);
    TakeSigmoid<V>(sigmoid);
    x = x * sigmoid;
  }
};

template <typename V, typename Function>
VS_INLINED void GateMultiplyRow(const Function& activation, const float* gate, const float* up,
                                int64_t width, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
#pragma GCC unroll 2
    for (int64_t at = i; at < i + kLanes; at += V::kWidth) {
      typename V::Floats x = VectorAt<V>(gate + at);
      activation.template Take<V>(x);
      VectorAt<V>(out + at) = x * VectorAt<V>(up + at);
    }
  }
  for (; i < width; ++i) out[i] = activation(gate[i]) * up[i];
}

template <typename Function>
VS_INLINED void GateMultiply(const Function& activation, const float* gate, const float* up,
                             int64_t stride, int64_t rows, int64_t width, float* out,
                             int64_t out_stride, bool by_whole_vectors) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *its_gate = gate + r * stride, *its_up = up + r * stride;
    float* its_out = out + r * out_stride;
    if (by_whole_vectors) {
      GateMultiplyRow<Whole>(activation, its_gate, its_up, width, its_out);
    } else {
      GateMultiplyRow<Halved>(activation, its_gate, its_up, width, its_out);
    }
  }
}

VS_VECTORISED void SiluMultiplyRows(const float* gate, const float* up, int64_t stride,
                                    int64_t rows, int64_t width, float* out, int64_t out_stride,
                                    bool by_whole_vectors) {
  GateMultiply(Silu(), gate, up, stride, rows, width, out, out_stride, by_whole_vectors);
}

VS_VECTORISED void GeluTanhMultiplyRows(const float* gate, const float* up, int64_t stride,
                                        int64_t rows, int64_t width, float* out, int64_t out_stride,
                                        bool by_whole_vectors) {
  GateMultiply(GeluTanh(), gate, up, stride, rows, width, out, out_stride, by_whole_vectors);
}

VS_VECTORISED void SoftCapRow(float* x, float cap, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) x[i] = cap * Tanh(x[i] / cap);
}

VS_VECTORISED void Scale(float* x, float factor, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) x[i] *= factor;
}

// --- Operators
// ------------------------------------------------------------------------------------

bool HasKernel(const at::Tensor& x) { return IsModelType(x.scalar_type()) && x.is_contiguous(); }

// Work below this many float operations is not worth waking another thread for.
constexpr int64_t kGrainOperations = 16384;

int64_t Grain(int64_t operations_per_item) {
  return std::max<int64_t>(1, kGrainOperations / std::max<int64_t>(1, operations_per_item));
}

// A norm's weight, and how it multiplies.
struct Gain {
  Gain(const at::Tensor& weight, const at::Tensor& x)
      : wide(weight.to(at::kFloat).contiguous()),
        data(wide.const_data_ptr<float>()),
        rounds_first(x.scalar_type() != at::kFloat && weight.scalar_type() == x.scalar_type()) {}

  const at::Tensor wide;  // float32
  const float* const data;
  const bool rounds_first;  // what it multiplies is rounded to x's type before
};

template <typename T>
void NormRow(const T* x, const Gain& gain, double epsilon, int64_t width, WideRows<T>& row,
             T* out) {
  const float* in = row.Read(x);
  float* normed = row.Of(out);
  const float mean = SumOfSquares(in, width) / static_cast<float>(width);
  const float scale = 1.0f / std::sqrt(mean + static_cast<float>(epsilon));
  if (gain.rounds_first) {
    Scale(normed, scale, width);
    row.Write(out);
    ScaleByWeight(row.Read(out), gain.data, 1.0f, width, normed);
  } else {
    ScaleByWeight(in, gain.data, scale, width, normed);
  }
  row.Write(out);
}

// Calls edit(token, row) on a token's numbers, and preserves their norm where asked to.
template <typename Operation>
void EditToken(float* token, int64_t width, int64_t row, bool preserves, const Operation& edit) {
  const float before = preserves ? std::sqrt(SumOfSquares(token, width)) : 0.0f;
  edit(token, row);
  if (!preserves) return;
  const float after = std::sqrt(SumOfSquares(token, width));
  if (after > 0) Scale(token, before / after, width);
}

// The same for every token whose row is active.
template <typename Operation>
void EditActiveRows(at::Tensor& x, const at::Tensor& active, const at::Tensor& table_rows,
                    int64_t operations_per_token, const Operation& edit) {
  at::Tensor whole = x.contiguous();
  const int64_t width = x.size(1), capacity = active.size(0);
  const uint8_t* activity = active.const_data_ptr<uint8_t>();
  const int64_t* rows = table_rows.const_data_ptr<int64_t>();
  ForTypeOf(x, [&](auto number) {
    using T = decltype(number);
    T* data = whole.mutable_data_ptr<T>();
    ForRanges(x.size(0), Grain(operations_per_token), [&](int64_t begin, int64_t end) {
      WideRows<T> wide(1, width);
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = rows[t];
        if (row >= capacity || activity[row] == kInactive) continue;
        T* token = data + t * width;
        wide.Read(token);
        EditToken(wide.Of(token), width, row, activity[row] == kPreservesNorm, edit);
        wide.Write(token);
      }
    });
  });
  if (!whole.is_same(x)) x.copy_(whole);
}

// heads [count, head_dim] to a token's place in the cache, which may be a column of it.
template <typename T>
void WriteHeads(const T* heads, int64_t count, int64_t head_dim, at::TensorAccessor<T, 2> place) {
  for (int64_t head = 0; head < count; ++head) {
    for (int64_t i = 0; i < head_dim; ++i) place[head][i] = heads[head * head_dim + i];
  }
}

// Several tokens may share a destination row, so rows are taken one after another, in order, and
// threads divide the columns. Calls operation(out, row, width).
template <typename RowOperation>
void ForEachTappedRow(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
                      at::Tensor& destination, RowOperation operation) {
  const int64_t width = x.size(1), count = tokens.size(0);
  const int64_t* token = tokens.const_data_ptr<int64_t>();
  const int64_t* row = rows.const_data_ptr<int64_t>();
  float* out = destination.mutable_data_ptr<float>();
  ForTypeOf(x, [&](auto number) {
    const auto* data = x.const_data_ptr<decltype(number)>();
    // Not in ever smaller parts: a row is copied fastest in large ones.
    at::parallel_for(0, width, Grain(count), [&](int64_t begin, int64_t end) {
      for (int64_t j = 0; j < count; ++j) {
        operation(out + row[j] * width + begin, data + token[j] * width + begin, end - begin);
      }
    });
  });
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  if (!HasKernel(x)) return reference::RmsNorm(x, weight, epsilon);
  const int64_t width = x.size(1);
  const Gain gain(weight, x);
  at::Tensor out = at::empty_like(x);
  ForTypeOf(x, [&](auto number) {
    using T = decltype(number);
    const T* in = x.const_data_ptr<T>();
    T* result = out.mutable_data_ptr<T>();
    ForRanges(x.size(0), Grain(3 * width), [&](int64_t begin, int64_t end) {
      WideRows<T> row(1, width);
      for (int64_t t = begin; t < end; ++t) {
        NormRow(in + t * width, gain, epsilon, width, row, result + t * width);
      }
    });
  });
  return out;
}

void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& cache_slots, at::Tensor& keys, at::Tensor& values,
                    int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
  if (!HasKernel(qkv)) {
    return reference::RotateAndCache(qkv, cosines, sines, cache_slots, keys, values, num_heads,
                                     num_kv_heads, head_dim);
  }
  const int64_t row = qkv.size(1), half = head_dim / 2, kv_width = num_kv_heads * head_dim;
  const int64_t block_size = keys.size(1);
  const int64_t* slot = cache_slots.const_data_ptr<int64_t>();
  ForTypeOf(qkv, [&](auto number) {
    using T = decltype(number);
    T* data = qkv.mutable_data_ptr<T>();
    auto key_cache = keys.accessor<T, 4>(), value_cache = values.accessor<T, 4>();
    const T* cosine = cosines.const_data_ptr<T>();
    const T* sine = sines.const_data_ptr<T>();
    ForRanges(qkv.size(0), Grain(4 * row), [&](int64_t begin, int64_t end) {
      WideRows<T> angles(2, half), wide(1, head_dim);
      for (int64_t t = begin; t < end; ++t) {
        T* token = data + t * row;
        const float* real = angles.Read(cosine + t * half, 0);
        const float* imaginary = angles.Read(sine + t * half, 1);
        for (int64_t head = 0; head < num_heads + num_kv_heads; ++head) {
          T* turned = token + head * head_dim;
          wide.Read(turned);
          RotateHead(wide.Of(turned), real, imaginary, half);
          wide.Write(turned);
        }
        const T* key = token + num_heads * head_dim;
        const int64_t block = slot[t] / block_size, offset = slot[t] % block_size;
        WriteHeads<T>(key, num_kv_heads, head_dim, key_cache[block][offset]);
        WriteHeads<T>(key + kv_width, num_kv_heads, head_dim, value_cache[block][offset]);
      }
    });
  });
}

void NormHeads(at::Tensor& qkv, const at::Tensor& query_weight, const at::Tensor& key_weight,
               double epsilon, int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
  if (!HasKernel(qkv)) {
    return reference::NormHeads(qkv, query_weight, key_weight, epsilon, num_heads, num_kv_heads,
                                head_dim);
  }
  const int64_t row = qkv.size(1), normed = num_heads + num_kv_heads;
  const Gain query_gain(query_weight, qkv), key_gain(key_weight, qkv);
  ForTypeOf(qkv, [&](auto number) {
    using T = decltype(number);
    T* data = qkv.mutable_data_ptr<T>();
    ForRanges(qkv.size(0), Grain(3 * row), [&](int64_t begin, int64_t end) {
      WideRows<T> wide(1, head_dim);
      for (int64_t t = begin; t < end; ++t) {
        for (int64_t head = 0; head < normed; ++head) {
          T* x = data + t * row + head * head_dim;
          NormRow(x, head < num_heads ? query_gain : key_gain, epsilon, head_dim, wide, x);
        }
      }
    });
  });
}

void GateMultiplyRows(Activation activation, const float* gate, const float* up, int64_t stride,
                      int64_t rows, int64_t width, float* out, int64_t out_stride) {
  const auto multiply = activation == Activation::kSilu ? SiluMultiplyRows : GeluTanhMultiplyRows;
  multiply(gate, up, stride, rows, width, out, out_stride, HasWholeVectors());
}

at::Tensor GateMultiply(const at::Tensor& gate_up, int64_t activation) {
  if (!HasKernel(gate_up)) return reference::GateMultiply(gate_up, activation);
  const int64_t width = gate_up.size(1) / 2;
  at::Tensor out = at::empty({gate_up.size(0), width}, gate_up.options());
  ForTypeOf(gate_up, [&](auto number) {
    using T = decltype(number);
    const T* in = gate_up.const_data_ptr<T>();
    T* result = out.mutable_data_ptr<T>();
    ForRanges(gate_up.size(0), Grain(20 * width), [&](int64_t begin, int64_t end) {
      WideRows<T> both(1, 2 * width), product(1, width);
      for (int64_t t = begin; t < end; ++t) {
        const float* gate = both.Read(in + 2 * t * width);
        T* row = result + t * width;
        GateMultiplyRows(static_cast<Activation>(activation), gate, gate + width, 2 * width, 1,
                         width, product.Of(row), width);
        product.Write(row);
      }
    });
  });
  return out;
}

void SoftCap(at::Tensor& x, double cap) {
  if (!HasKernel(x)) return reference::SoftCap(x, cap);
  const int64_t width = x.size(1);
  ForTypeOf(x, [&](auto number) {
    using T = decltype(number);
    T* data = x.mutable_data_ptr<T>();
    ForRanges(x.size(0), Grain(20 * width), [&](int64_t begin, int64_t end) {
      WideRows<T> wide(1, width);
      for (int64_t t = begin; t < end; ++t) {
        T* row = data + t * width;
        wide.Read(row);
        SoftCapRow(wide.Of(row), static_cast<float>(cap), width);
        wide.Write(row);
      }
    });
  });
}

void AddRows(at::Tensor& x, const at::Tensor& active, const at::Tensor& rows,
             const at::Tensor& table_rows) {
  const int64_t width = x.size(1);
  const float* table = rows.const_data_ptr<float>();
  EditActiveRows(x, active, table_rows, width,
                 [&](float* token, int64_t row) { AddTo(token, table + row * width, width); });
}

void ScaleOrSet(at::Tensor& x, const at::Tensor& active, const at::Tensor& factors,
                const at::Tensor& values, const at::Tensor& table_rows) {
  const int64_t width = x.size(1);
  const float* factor = factors.const_data_ptr<float>();
  const float* value = values.const_data_ptr<float>();
  EditActiveRows(x, active, table_rows, width, [&](float* token, int64_t row) {
    ScaleOrSetRow(token, factor + row * width, value + row * width, width);
  });
}

void Project(at::Tensor& x, const at::Tensor& active, const at::Tensor& basis,
             const at::Tensor& ranks, const at::Tensor& kept, const at::Tensor& targets,
             const at::Tensor& table_rows) {
  const int64_t width = x.size(1), most = basis.size(1);
  const float* directions = basis.const_data_ptr<float>();
  const int64_t* rank = ranks.const_data_ptr<int64_t>();
  const float* keeps = kept.const_data_ptr<float>();
  const float* target = targets.const_data_ptr<float>();
  EditActiveRows(x, active, table_rows, 4 * width * most, [&](float* token, int64_t row) {
    const float* own = directions + row * most * width;
    const int64_t count = rank[row];
    float change[kMostDirections];
    for (int64_t k = 0; k < count; ++k) {
      const float along = Dot(token, own + k * width, width);
      change[k] = (keeps[row] - 1.0f) * along + target[row * most + k];
    }
    for (int64_t k = 0; k < count; ++k) {
      AddMultiple(token, change[k], own + k * width, width);
    }
  });
}

void TapCopy(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination) {
  if (!HasKernel(x)) return reference::TapCopy(x, tokens, rows, destination);
  ForEachTappedRow(x, tokens, rows, destination,
                   [](float* out, const auto* in, int64_t width) { Widen(in, width, out); });
}

void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  if (!HasKernel(x)) return reference::TapSum(x, tokens, rows, destination);
  const int64_t width = x.size(1), count = tokens.size(0);
  const int64_t* token = tokens.const_data_ptr<int64_t>();
  const int64_t* row = rows.const_data_ptr<int64_t>();
  double* sums = destination.mutable_data_ptr<double>();
  const int64_t parts = at::divup(width, kTappedColumns);
  ForTypeOf(x, [&](auto number) {
    const auto* data = x.const_data_ptr<decltype(number)>();
    ForRanges(parts, Grain(count * kTappedColumns), [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t column = part * kTappedColumns;
        const int64_t columns = std::min(kTappedColumns, width - column);
        // Tokens behind each other mostly have one sum.
        for (int64_t first = 0, next = 0; first < count; first = next) {
          while (next < count && row[next] == row[first]) ++next;
          AddRowsToDouble(sums + row[first] * width + column, data + column, width, token + first,
                          next - first, columns);
        }
      }
    });
  });
}

void TapMax(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  if (!HasKernel(x)) return reference::TapMax(x, tokens, rows, destination);
  ForEachTappedRow(x, tokens, rows, destination, [](float* out, const auto* in, int64_t width) {
    // A NaN stays visible.
    for (int64_t i = 0; i < width; ++i) {
      const auto value = static_cast<float>(in[i]);
      if (!(value <= out[i])) out[i] = value;
    }
  });
}

}  // namespace valuescope::model::cpu
