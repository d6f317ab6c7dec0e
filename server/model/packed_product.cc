// oneDNN's products, reached through libtorch's own operators: a weight is laid out once in the
// blocks that oneDNN's kernels read. No other product on a CPU is faster at any row count, and a
// row's bits hardly ever depend on its company (linear.cc sees to the rest).
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

#include "model/kernels.h"

namespace valuescope::model {
namespace {

// The row count that oneDNN lays the blocks out for. One layout serves every count. Laid out for
// few rows, the products of many are no faster and change a row's bits with its company.
constexpr int64_t kLayoutRows = 512;

template <typename Function>
auto Operator(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

}  // namespace

bool CanPack(const at::Tensor& weight) {
  if (!weight.is_cpu()) return false;
  if (weight.scalar_type() == at::kFloat) return true;
  // What oneDNN asks of a processor for bfloat16.
  return weight.scalar_type() == at::kBFloat16 && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

at::Tensor PackWeight(const at::Tensor& weight) {
  static const auto reorder = Operator<at::Tensor(const at::Tensor&, std::optional<int64_t>)>(
      "mkldnn::_reorder_linear_weight");
  return reorder.call(weight, kLayoutRows);
}

at::Tensor PackedProduct(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias) {
  using Scalars = c10::List<std::optional<at::Scalar>>;
  static const auto product =
      Operator<at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                          std::string_view, Scalars, std::optional<std::string_view>)>(
          "mkldnn::_linear_pointwise");
  if (x.size(0) == 0) return at::empty({0, packed.size(0)}, x.options());
  return product.call(x, packed, bias.defined() ? std::optional(bias) : std::nullopt, "none",
                      Scalars(), "");
}

}  // namespace valuescope::model
