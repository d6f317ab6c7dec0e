#include "model/kernels.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#include "base/check.h"
#include "model/reference.h"

// MKL's packed products, exported by libtorch_cpu.
extern "C" {
size_t cblas_sgemm_pack_get_size(int identifier, int m, int n, int k);
void cblas_sgemm_pack(int layout, int identifier, int transpose, int m, int n, int k, float alpha,
                      const float* source, int leading, float* destination);
void cblas_sgemm_compute(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                         const float* a, int leading_a, const float* b, int leading_b, float beta,
                         float* c, int leading_c);
}

// One binary serves every x86-64: the loader picks the widest variant that the machine has.
#define VS_VECTORISED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), noinline))

namespace valuescope::model {
namespace {

// --- Loops over one row
// ----------------------------------------------------------------------------------------------

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

VS_VECTORISED void AddToDouble(double* sum, const float* row, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) sum[i] += static_cast<double>(row[i]);
}

// exp(x) for x <= 0 as 2^n * p(f): the polynomial is Cephes' expf, within 2 ulp, and vectorises
// where std::exp does not.
inline float ExpOfNonPositive(float x) {
  x = std::max(x, -87.0f);
  const float n = std::nearbyint(x * 1.44269504088896341f);
  const float f = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return p * scale;
}

VS_VECTORISED void SiluMultiplyRow(const float* gate, const float* up, int64_t width, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    // sigmoid by the exponential of a non-positive number, so that nothing overflows.
    const float e = ExpOfNonPositive(-std::fabs(gate[i]));
    const float sigmoid = (gate[i] >= 0 ? 1.0f : e) / (1.0f + e);
    out[i] = gate[i] * sigmoid * up[i];
  }
}

// One query head over the keys and values of one cache block: running maximum, sum and output of a
// streaming softmax.
struct StreamingSoftmax {
  float maximum = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

constexpr int64_t kMaxBlock = 64;

VS_VECTORISED void AttendBlock(const float* query, const float* keys, const float* values,
                               int64_t count, int64_t stride, int64_t head_dim, float scale,
                               StreamingSoftmax& state, float* out) {
  float scores[kMaxBlock];
  float maximum = state.maximum;
  for (int64_t j = 0; j < count; ++j) {
    const float* key = keys + j * stride;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < head_dim; ++i) dot += query[i] * key[i];
    scores[j] = dot * scale;
    maximum = std::max(maximum, scores[j]);
  }
  if (maximum > state.maximum) {
    const float shrink = state.sum == 0 ? 0.0f : ExpOfNonPositive(state.maximum - maximum);
    state.sum *= shrink;
#pragma omp simd
    for (int64_t i = 0; i < head_dim; ++i) out[i] *= shrink;
    state.maximum = maximum;
  }
  for (int64_t j = 0; j < count; ++j) {
    const float weight = ExpOfNonPositive(scores[j] - maximum);
    state.sum += weight;
    const float* value = values + j * stride;
#pragma omp simd
    for (int64_t i = 0; i < head_dim; ++i) out[i] += weight * value[i];
  }
}

VS_VECTORISED void Scale(float* x, float factor, int64_t width) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) x[i] *= factor;
}

// --- Operators on a CPU
// ----------------------------------------------------------------------------------------------

bool HasKernel(const at::Tensor& x) { return x.scalar_type() == at::kFloat && x.is_contiguous(); }

// Work below this many float operations is not worth waking another thread for.
constexpr int64_t kGrainOperations = 16384;

int64_t Grain(int64_t operations_per_item) {
  return std::max<int64_t>(1, kGrainOperations / std::max<int64_t>(1, operations_per_item));
}

at::Tensor RmsNormCpu(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  if (!HasKernel(x)) return reference::RmsNorm(x, weight, epsilon);
  const int64_t width = x.size(1);
  at::Tensor out = at::empty_like(x);
  const float* in = x.const_data_ptr<float>();
  const float* gain = weight.const_data_ptr<float>();
  float* result = out.mutable_data_ptr<float>();
  at::parallel_for(0, x.size(0), Grain(3 * width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float mean = SumOfSquares(in + t * width, width) / static_cast<float>(width);
      const float scale = 1.0f / std::sqrt(mean + static_cast<float>(epsilon));
      ScaleByWeight(in + t * width, gain, scale, width, result + t * width);
    }
  });
  return out;
}

void RotateAndCacheCpu(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                       const at::Tensor& positions, const at::Tensor& cache_slots, at::Tensor& keys,
                       at::Tensor& values, int64_t num_heads, int64_t num_kv_heads,
                       int64_t head_dim) {
  if (!HasKernel(qkv)) {
    return reference::RotateAndCache(qkv, cosines, sines, positions, cache_slots, keys, values,
                                     num_heads, num_kv_heads, head_dim);
  }
  const int64_t row = qkv.size(1), half = head_dim / 2, kv_width = num_kv_heads * head_dim;
  float* data = qkv.mutable_data_ptr<float>();
  float* key_cache = keys.mutable_data_ptr<float>();
  float* value_cache = values.mutable_data_ptr<float>();
  const float* cosine = cosines.const_data_ptr<float>();
  const float* sine = sines.const_data_ptr<float>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  const int64_t* slot = cache_slots.const_data_ptr<int64_t>();
  at::parallel_for(0, qkv.size(0), Grain(4 * row), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* token = data + t * row;
      for (int64_t head = 0; head < num_heads + num_kv_heads; ++head) {
        RotateHead(token + head * head_dim, cosine + position[t] * half, sine + position[t] * half,
                   half);
      }
      const float* key = token + num_heads * head_dim;
      std::memcpy(key_cache + slot[t] * kv_width, key, kv_width * sizeof(float));
      std::memcpy(value_cache + slot[t] * kv_width, key + kv_width, kv_width * sizeof(float));
    }
  });
}

at::Tensor AttentionCpu(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                        const at::Tensor& sequences, const at::Tensor& positions,
                        const at::Tensor& block_tables, int64_t num_heads, int64_t num_kv_heads,
                        int64_t head_dim) {
  const int64_t block_size = keys.size(1);
  if (!HasKernel(qkv) || block_size > kMaxBlock) {
    return reference::Attention(qkv, keys, values, sequences, positions, block_tables, num_heads,
                                num_kv_heads, head_dim);
  }
  const int64_t num_tokens = qkv.size(0), row = qkv.size(1), group = num_heads / num_kv_heads;
  const int64_t stride = num_kv_heads * head_dim, max_blocks = block_tables.size(1);
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  at::Tensor out = at::zeros({num_tokens, num_heads * head_dim}, qkv.options());
  const float* data = qkv.const_data_ptr<float>();
  const float* key_cache = keys.const_data_ptr<float>();
  const float* value_cache = values.const_data_ptr<float>();
  const int64_t* sequence = sequences.const_data_ptr<int64_t>();
  const int64_t* position = positions.const_data_ptr<int64_t>();
  const int64_t* tables = block_tables.const_data_ptr<int64_t>();
  float* result = out.mutable_data_ptr<float>();
  at::parallel_for(0, num_tokens * num_kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t = item / num_kv_heads, kv_head = item % num_kv_heads;
      const int64_t length = position[t] + 1;
      const int64_t* table = tables + sequence[t] * max_blocks;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        float* output = result + (t * num_heads + head) * head_dim;
        StreamingSoftmax state;
        for (int64_t first = 0; first < length; first += block_size) {
          const int64_t offset =
              table[first / block_size] * block_size * stride + kv_head * head_dim;
          AttendBlock(data + t * row + head * head_dim, key_cache + offset, value_cache + offset,
                      std::min(block_size, length - first), stride, head_dim, scale, state, output);
        }
        Scale(output, 1.0f / state.sum, head_dim);
      }
    }
  });
  return out;
}

at::Tensor SiluMultiplyCpu(const at::Tensor& gate_up) {
  if (!HasKernel(gate_up)) return reference::SiluMultiply(gate_up);
  const int64_t width = gate_up.size(1) / 2;
  at::Tensor out = at::empty({gate_up.size(0), width}, gate_up.options());
  const float* in = gate_up.const_data_ptr<float>();
  float* result = out.mutable_data_ptr<float>();
  at::parallel_for(0, gate_up.size(0), Grain(20 * width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      SiluMultiplyRow(in + 2 * t * width, in + (2 * t + 1) * width, width, result + t * width);
    }
  });
  return out;
}

void AddRowsCpu(at::Tensor& x, const at::Tensor& rows, const at::Tensor& table_rows) {
  if (!HasKernel(x)) return reference::AddRows(x, rows, table_rows);
  const int64_t width = x.size(1);
  float* data = x.mutable_data_ptr<float>();
  const float* table = rows.const_data_ptr<float>();
  const int64_t* row = table_rows.const_data_ptr<int64_t>();
  at::parallel_for(0, x.size(0), Grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      if (row[t] != 0) AddTo(data + t * width, table + row[t] * width, width);
    }
  });
}

// Several tokens may share a destination row, so rows are taken one after another, in order.
template <typename Destination, typename RowOperation>
void ForEachTappedRow(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
                      at::Tensor& destination, RowOperation operation) {
  const int64_t width = x.size(1);
  const float* data = x.const_data_ptr<float>();
  const int64_t* token = tokens.const_data_ptr<int64_t>();
  const int64_t* row = rows.const_data_ptr<int64_t>();
  Destination* out = destination.mutable_data_ptr<Destination>();
  for (int64_t j = 0; j < tokens.size(0); ++j) {
    operation(out + row[j] * width, data + token[j] * width, width);
  }
}

void TapCopyCpu(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
                at::Tensor& destination) {
  if (!HasKernel(x)) return reference::TapCopy(x, tokens, rows, destination);
  ForEachTappedRow<float>(x, tokens, rows, destination,
                          [](float* out, const float* in, int64_t width) {
                            std::memcpy(out, in, width * sizeof(float));
                          });
}

void TapSumCpu(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
               at::Tensor& destination) {
  if (!HasKernel(x)) return reference::TapSum(x, tokens, rows, destination);
  ForEachTappedRow<double>(x, tokens, rows, destination, AddToDouble);
}

void TapMaxCpu(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
               at::Tensor& destination) {
  if (!HasKernel(x)) return reference::TapMax(x, tokens, rows, destination);
  ForEachTappedRow<float>(x, tokens, rows, destination,
                          [](float* out, const float* in, int64_t width) {
                            for (int64_t i = 0; i < width; ++i) out[i] = std::max(out[i], in[i]);
                          });
}

constexpr int kRowMajor = 101, kNoTranspose = 111, kTranspose = 112, kPacked = 151, kMatrixB = 162;
// The row count that MKL packs for. One packing serves every count; this one was best or tied
// everywhere.
constexpr int kPackedRows = 256;

// On other makers' processors MKL's widest kernels are slower for few rows and make a row's bits
// depend on more of its company than its AVX2 kernels do; on Intel's they are the best of both. MKL
// reads the variable once, before its first product, so this runs before main; a value that the
// operator set stands.
__attribute__((constructor)) void ChooseMklKernels() {
  __builtin_cpu_init();
  if (!__builtin_cpu_is("intel") && __builtin_cpu_supports("avx2")) {
    setenv("MKL_CBWR", "AVX2", /*overwrite=*/0);
  }
}

at::Tensor PackWeightCpu(const at::Tensor& weight) {
  const int out_features = static_cast<int>(weight.size(0)),
            in_features = static_cast<int>(weight.size(1));
  const size_t bytes = cblas_sgemm_pack_get_size(kMatrixB, kPackedRows, out_features, in_features);
  // The size is a generous bound; pages that are never written cost nothing.
  at::Tensor packed =
      at::empty({static_cast<int64_t>(bytes / sizeof(float)) + 16}, weight.options());
  cblas_sgemm_pack(kRowMajor, kMatrixB, kTranspose, kPackedRows, out_features, in_features, 1.0f,
                   weight.const_data_ptr<float>(), in_features, packed.mutable_data_ptr<float>());
  return packed;
}

at::Tensor PackedProductCpu(const at::Tensor& x, const at::Tensor& packed, int64_t out_features) {
  at::Tensor out = at::empty({x.size(0), out_features}, x.options());
  const int rows = static_cast<int>(x.size(0)), in_features = static_cast<int>(x.size(1));
  if (rows == 0) return out;
  cblas_sgemm_compute(kRowMajor, kNoTranspose, kPacked, rows, static_cast<int>(out_features),
                      in_features, x.const_data_ptr<float>(), in_features,
                      packed.const_data_ptr<float>(), in_features, 0.0f,
                      out.mutable_data_ptr<float>(), static_cast<int>(out_features));
  return out;
}

// --- Meta tensors: shapes without values
// -----------------------------------------------------------------------------

at::Tensor RmsNormMeta(const at::Tensor& x, const at::Tensor&, double) { return at::empty_like(x); }
void RotateAndCacheMeta(at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const at::Tensor&, at::Tensor&, at::Tensor&, int64_t, int64_t, int64_t) {}
at::Tensor AttentionMeta(const at::Tensor& qkv, const at::Tensor&, const at::Tensor&,
                         const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t num_heads,
                         int64_t, int64_t head_dim) {
  return at::empty({qkv.size(0), num_heads * head_dim}, qkv.options());
}
at::Tensor SiluMultiplyMeta(const at::Tensor& gate_up) {
  return at::empty({gate_up.size(0), gate_up.size(1) / 2}, gate_up.options());
}
void AddRowsMeta(at::Tensor&, const at::Tensor&, const at::Tensor&) {}
void TapMeta(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&) {}
at::Tensor PackedProductMeta(const at::Tensor& x, const at::Tensor&, int64_t out_features) {
  return at::empty({x.size(0), out_features}, x.options());
}

TORCH_LIBRARY(valuescope, library) {
  library.def("rms_norm(Tensor x, Tensor weight, float epsilon) -> Tensor");
  library.def(
      "rotate_and_cache(Tensor(a!) qkv, Tensor cosines, Tensor sines, Tensor positions, Tensor "
      "cache_slots, "
      "Tensor(b!) keys, Tensor(c!) values, int num_heads, int num_kv_heads, int head_dim) -> ()");
  library.def(
      "attention(Tensor qkv, Tensor keys, Tensor values, Tensor sequences, Tensor positions, "
      "Tensor block_tables, int num_heads, int num_kv_heads, int head_dim) -> Tensor");
  library.def("silu_multiply(Tensor gate_up) -> Tensor");
  library.def("add_rows(Tensor(a!) x, Tensor rows, Tensor table_rows) -> ()");
  library.def("tap_copy(Tensor x, Tensor tokens, Tensor rows, Tensor(a!) destination) -> ()");
  library.def("tap_sum(Tensor x, Tensor tokens, Tensor rows, Tensor(a!) destination) -> ()");
  library.def("tap_max(Tensor x, Tensor tokens, Tensor rows, Tensor(a!) destination) -> ()");
  library.def("pack_weight(Tensor weight) -> Tensor");
  library.def("packed_product(Tensor x, Tensor packed, int out_features) -> Tensor");
}

TORCH_LIBRARY_IMPL(valuescope, CPU, library) {
  library.impl("rms_norm", RmsNormCpu);
  library.impl("rotate_and_cache", RotateAndCacheCpu);
  library.impl("attention", AttentionCpu);
  library.impl("silu_multiply", SiluMultiplyCpu);
  library.impl("add_rows", AddRowsCpu);
  library.impl("tap_copy", TapCopyCpu);
  library.impl("tap_sum", TapSumCpu);
  library.impl("tap_max", TapMaxCpu);
  library.impl("pack_weight", PackWeightCpu);
  library.impl("packed_product", PackedProductCpu);
}

TORCH_LIBRARY_IMPL(valuescope, Meta, library) {
  library.impl("rms_norm", RmsNormMeta);
  library.impl("rotate_and_cache", RotateAndCacheMeta);
  library.impl("attention", AttentionMeta);
  library.impl("silu_multiply", SiluMultiplyMeta);
  library.impl("add_rows", AddRowsMeta);
  library.impl("tap_copy", TapMeta);
  library.impl("tap_sum", TapMeta);
  library.impl("tap_max", TapMeta);
  library.impl("packed_product", PackedProductMeta);
}

TORCH_LIBRARY_IMPL(valuescope, CUDA, library) {
  library.impl("rms_norm", reference::RmsNorm);
  library.impl("rotate_and_cache", reference::RotateAndCache);
  library.impl("attention", reference::Attention);
  library.impl("silu_multiply", reference::SiluMultiply);
  library.impl("add_rows", reference::AddRows);
  library.impl("tap_copy", reference::TapCopy);
  library.impl("tap_sum", reference::TapSum);
  library.impl("tap_max", reference::TapMax);
}

template <typename Signature>
auto Operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  static const auto op =
      Operator<at::Tensor(const at::Tensor&, const at::Tensor&, double)>("valuescope::rms_norm");
  return op.call(x, weight, epsilon);
}

void RotateAndCache(at::Tensor& qkv, const at::Tensor& cosines, const at::Tensor& sines,
                    const at::Tensor& positions, const at::Tensor& cache_slots, at::Tensor& keys,
                    at::Tensor& values, const HeadShape& heads) {
  static const auto op =
      Operator<void(at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                    const at::Tensor&, at::Tensor&, at::Tensor&, int64_t, int64_t, int64_t)>(
          "valuescope::rotate_and_cache");
  op.call(qkv, cosines, sines, positions, cache_slots, keys, values, heads.num_heads,
          heads.num_kv_heads, heads.head_dim);
}

at::Tensor Attention(const at::Tensor& qkv, const at::Tensor& keys, const at::Tensor& values,
                     const at::Tensor& sequences, const at::Tensor& positions,
                     const at::Tensor& block_tables, const HeadShape& heads) {
  static const auto op = Operator<at::Tensor(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
      const at::Tensor&, int64_t, int64_t, int64_t)>("valuescope::attention");
  return op.call(qkv, keys, values, sequences, positions, block_tables, heads.num_heads,
                 heads.num_kv_heads, heads.head_dim);
}

at::Tensor SiluMultiply(const at::Tensor& gate_up) {
  static const auto op = Operator<at::Tensor(const at::Tensor&)>("valuescope::silu_multiply");
  return op.call(gate_up);
}

void AddRows(at::Tensor& x, const at::Tensor& rows, const at::Tensor& table_rows) {
  static const auto op =
      Operator<void(at::Tensor&, const at::Tensor&, const at::Tensor&)>("valuescope::add_rows");
  op.call(x, rows, table_rows);
}

using TapSignature = void(const at::Tensor&, const at::Tensor&, const at::Tensor&, at::Tensor&);

void TapCopy(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
             at::Tensor& destination) {
  static const auto op = Operator<TapSignature>("valuescope::tap_copy");
  op.call(x, tokens, rows, destination);
}

void TapSum(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  static const auto op = Operator<TapSignature>("valuescope::tap_sum");
  op.call(x, tokens, rows, destination);
}

void TapMax(const at::Tensor& x, const at::Tensor& tokens, const at::Tensor& rows,
            at::Tensor& destination) {
  static const auto op = Operator<TapSignature>("valuescope::tap_max");
  op.call(x, tokens, rows, destination);
}

at::Tensor PackWeight(const at::Tensor& weight) {
  static const auto op = Operator<at::Tensor(const at::Tensor&)>("valuescope::pack_weight");
  return op.call(weight);
}

at::Tensor PackedProduct(const at::Tensor& x, const at::Tensor& packed, int64_t out_features) {
  static const auto op = Operator<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t)>(
      "valuescope::packed_product");
  return op.call(x, packed, out_features);
}

}  // namespace valuescope::model
