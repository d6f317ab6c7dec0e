// MKL's packed products, exported by libtorch_cpu: a weight is laid out once for the kernel that
// will read it.
#include <ATen/ops/empty.h>

#include <cstdlib>

#include "model/cpu_kernels.h"

extern "C" {
size_t cblas_sgemm_pack_get_size(int identifier, int m, int n, int k);
void cblas_sgemm_pack(int layout, int identifier, int transpose, int m, int n, int k, float alpha,
                      const float* source, int leading, float* destination);
void cblas_sgemm_compute(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                         const float* a, int leading_a, const float* b, int leading_b, float beta,
                         float* c, int leading_c);
}

namespace valuescope::model::cpu {
namespace {

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

}  // namespace

at::Tensor PackWeight(const at::Tensor& weight) {
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

at::Tensor PackedProduct(const at::Tensor& x, const at::Tensor& packed, int64_t out_features) {
  at::Tensor out = at::empty({x.size(0), out_features}, x.options());
  const int rows = static_cast<int>(x.size(0)), in_features = static_cast<int>(x.size(1));
  if (rows == 0) return out;
  cblas_sgemm_compute(kRowMajor, kNoTranspose, kPacked, rows, static_cast<int>(out_features),
                      in_features, x.const_data_ptr<float>(), in_features,
                      packed.const_data_ptr<float>(), in_features, 0.0f,
                      out.mutable_data_ptr<float>(), static_cast<int>(out_features));
  return out;
}

}  // namespace valuescope::model::cpu
