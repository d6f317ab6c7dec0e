// Products with a weight that is laid out once in the blocks that a library's kernels read, by the
// two libraries that libtorch brings. MKL's are the faster ones in float32 on Intel's processors,
// by a fifth to a half up to some hundred rows, and slow on others, where oneDNN's are; oneDNN's
// know bfloat16. A row's bits hardly ever depend on its company (linear.cc sees to the rest).
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cstddef>

#include "model/kernels.h"

// libtorch exports these of the MKL that it is linked with and has no header for them.
extern "C" {
size_t cblas_sgemm_pack_get_size(int matrix, int m, int n, int k);
void cblas_sgemm_pack(int layout, int matrix, int transposed, int m, int n, int k, float alpha,
                      const float* source, int stride, float* packed);
void cblas_sgemm_compute(int layout, int transposed_a, int transposed_b, int m, int n, int k,
                         const float* a, int stride_a, const float* b, int stride_b, float beta,
                         float* c, int stride_c);
}

namespace valuescope::model {
namespace {

// CBLAS' own numbers.
constexpr int kRowMajor = 101, kNotTransposed = 111, kTransposed = 112, kPacked = 151;
constexpr int kMatrixB = 162;

// The row counts that the blocks are laid out for. One layout serves every count. oneDNN's for few
// rows makes products of many no faster and changes a row's bits with its company.
constexpr int kMklRows = 256;
constexpr int64_t kOneDnnRows = 512;

// By the processor, not by a measurement: what a server computes must not depend on how busy its
// machine was when it started.
bool TakesMkl(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat && __builtin_cpu_is("intel") != 0;
}

// The size that is asked for overstates; untouched pages cost nothing.
at::Tensor PackForMkl(const at::Tensor& weight) {
  const int out = static_cast<int>(weight.size(0)), in = static_cast<int>(weight.size(1));
  const size_t bytes = cblas_sgemm_pack_get_size(kMatrixB, kMklRows, out, in);
  at::Tensor blocks =
      at::empty({static_cast<int64_t>((bytes + sizeof(float) - 1) / sizeof(float))}, at::kFloat);
  cblas_sgemm_pack(kRowMajor, kMatrixB, kTransposed, kMklRows, out, in, /*alpha=*/1,
                   weight.const_data_ptr<float>(), in, blocks.mutable_data_ptr<float>());
  return blocks;
}

// x [num_tokens, in] -> [num_tokens, out]
at::Tensor MklProduct(const at::Tensor& x, const at::Tensor& blocks, int64_t out_features) {
  at::Tensor y = at::empty({x.size(0), out_features}, x.options());
  const int rows = static_cast<int>(x.size(0)), in = static_cast<int>(x.size(1));
  const int out = static_cast<int>(out_features);
  cblas_sgemm_compute(kRowMajor, kNotTransposed, kPacked, rows, out, in, x.const_data_ptr<float>(),
                      in, blocks.const_data_ptr<float>(), in, /*beta=*/0,
                      y.mutable_data_ptr<float>(), out);
  return y;
}

// An operator, so that observers see it.
TORCH_LIBRARY_FRAGMENT(valuescope, library) {
  library.def("mkl_product(Tensor x, Tensor blocks, int out_features) -> Tensor");
}
TORCH_LIBRARY_IMPL(valuescope, CPU, library) { library.impl("mkl_product", MklProduct); }

template <typename Function>
auto Operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

at::Tensor ProductByMkl(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& bias) {
  static const auto product = Operator<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t)>(
      "valuescope::mkl_product");
  at::Tensor y = product.call(x, packed.blocks, packed.out_features);
  return bias.defined() ? y.add_(bias) : y;
}

at::Tensor ProductByOneDnn(const at::Tensor& x, const PackedWeight& packed,
                           const at::Tensor& bias) {
  using Scalars = c10::List<std::optional<at::Scalar>>;
  static const auto product =
      Operator<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                          std::string_view, Scalars, std::optional<std::string_view>)>(
          "mkldnn::_linear_pointwise");
  return product.call(x, packed.blocks, bias.defined() ? std::optional(bias) : std::nullopt, "none",
                      Scalars(), "");
}

}  // namespace

bool CanPack(const at::Tensor& weight) {
  if (!weight.is_cpu()) return false;
  if (weight.scalar_type() == at::kFloat) return true;
  // What oneDNN asks of a processor for bfloat16.
  return weight.scalar_type() == at::kBFloat16 && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

PackedWeight PackWeight(const at::Tensor& weight) {
  static const auto reorder = Operator<at::Tensor(const at::Tensor&, std::optional<int64_t>)>(
      "mkldnn::_reorder_linear_weight");
  return {.blocks = TakesMkl(weight) ? PackForMkl(weight.contiguous())
                                     : reorder.call(weight, kOneDnnRows),
          .out_features = weight.size(0)};
}

at::Tensor PackedProduct(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& bias) {
  if (x.size(0) == 0) return at::empty({0, packed.out_features}, x.options());
  return TakesMkl(x) ? ProductByMkl(x.contiguous(), packed, bias)
                     : ProductByOneDnn(x, packed, bias);
}

}  // namespace valuescope::model
