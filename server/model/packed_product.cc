// Products with a weight that is laid out once for them: our own kernel (cpu_product.cc) or
// oneDNN's, which are reached through libtorch's operators. In float32 on Intel's processors with
// AVX-512, ours need three quarters of the time of MKL's packed products for one row, six tenths
// for eight and sixteen, and nearly as long for hundreds. On an AMD
// with AVX2 (Zen 3) a forward pass by ours takes a third of its time by oneDNN's for one row and .7
// for a thousand.
// oneDNN's bits hardly ever depend on a row's company, and linear.cc sees to the rest.
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

#include "base/check.h"
#include "model/cpu_kernels.h"
#include "model/kernels.h"

namespace valuescope::model {
namespace {

// The row count that oneDNN lays the blocks out for. One layout serves every count. Laid out for
// few rows, the products of many are no faster and change a row's bits with its company.
constexpr int64_t kOneDnnRows = 512;

template <typename Function>
auto Operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

at::Tensor OwnProduct(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& bias) {
  static const auto product = Operator<at::Tensor(const at::Tensor&, const at::Tensor&, int64_t)>(
      "valuescope::packed_product");
  at::Tensor y = product.call(x, packed.blocks, packed.out_features);
  return bias.defined() ? y.add_(bias) : y;
}

at::Tensor OneDnnProduct(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& bias) {
  using Scalars = c10::List<std::optional<at::Scalar>>;
  static const auto product =
      Operator<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                          std::string_view, Scalars, std::optional<std::string_view>)>(
          "mkldnn::_linear_pointwise");
  return product.call(x, packed.blocks, bias.defined() ? std::optional(bias) : std::nullopt, "none",
                      Scalars(), "");
}

}  // namespace

bool CanPack(c10::Device device, c10::ScalarType dtype) {
  if (!device.is_cpu()) return false;
  if (dtype == at::kFloat) return true;
  // What oneDNN asks of a processor for bfloat16.
  return dtype == at::kBFloat16 && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

// By the processor, not by a measurement: what a server computes must not depend on how busy its
// machine was when it started.
bool PacksAsOwn(c10::Device device, c10::ScalarType dtype) {
  return device.is_cpu() && dtype == at::kFloat && __builtin_cpu_supports("avx2") != 0 &&
         __builtin_cpu_supports("fma") != 0;
}

int64_t PackedBytes(int64_t out_features, int64_t in_features, c10::ScalarType dtype) {
  if (PacksAsOwn(c10::kCPU, dtype)) return cpu::PackedBytes(out_features, in_features);
  const auto size = static_cast<int64_t>(c10::elementSize(dtype));
  if (dtype == at::kFloat) return out_features * in_features * size;
  // Whole tiles of a processor for half types: 64 outputs of 32 inputs, or of 64.
  constexpr int64_t kTile = 64;
  const auto padded = [](int64_t n) { return (n + kTile - 1) / kTile * kTile; };
  return padded(out_features) * padded(in_features) * size;
}

PackedWeight PackWeight(const at::Tensor& weight) {
  static const auto reorder = Operator<at::Tensor(const at::Tensor&, std::optional<int64_t>)>(
      "mkldnn::_reorder_linear_weight");
  const bool own = PacksAsOwn(weight.device(), weight.scalar_type());
  return {
      .blocks = own ? cpu::PackForProduct(weight.contiguous()) : reorder.call(weight, kOneDnnRows),
      .out_features = weight.size(0),
      .is_own = own};
}

at::Tensor PackedProduct(const at::Tensor& x, const PackedWeight& packed, const at::Tensor& bias) {
  if (x.size(0) == 0) return at::empty({0, packed.out_features}, x.options());
  return packed.is_own ? OwnProduct(x.contiguous(), packed, bias) : OneDnnProduct(x, packed, bias);
}

at::Tensor GatedProduct(const at::Tensor& x, const PackedWeight& gate, const PackedWeight& up,
                        Activation activation) {
  VS_CHECK(gate.is_own && up.is_own && gate.out_features == up.out_features);
  static const auto product =
      Operator<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                          int64_t)>("valuescope::gated_product");
  return product.call(x.contiguous(), gate.blocks, up.blocks, gate.out_features,
                      static_cast<int64_t>(activation));
}

}  // namespace valuescope::model
