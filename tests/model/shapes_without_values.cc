// Shapes of what operators of libtorch return on tensors without values. Its Python part brings
// these; its C++ part leaves them out, and a step on such tensors needs them.
#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>
#include <torch/library.h>

#include <vector>

namespace valuescope::model {
namespace {

at::Tensor IndexSelect(const at::Tensor& x, int64_t dimension, const at::Tensor& index) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape[static_cast<size_t>(dimension < 0 ? dimension + x.dim() : dimension)] = index.numel();
  return at::empty(shape, x.options());
}

at::Tensor Where(const at::Tensor& condition, const at::Tensor& x, const at::Tensor& y) {
  const auto shape = at::infer_size(condition.sizes(), at::infer_size(x.sizes(), y.sizes()));
  return at::empty(shape, condition.options().dtype(at::result_type(x, y)));
}

at::Tensor& WhereOut(const at::Tensor& condition, const at::Tensor& x, const at::Tensor& y,
                     at::Tensor& out) {
  out.resize_(Where(condition, x, y).sizes());
  return out;
}

TORCH_LIBRARY_IMPL(aten, Meta, library) {
  library.impl("index_select", IndexSelect);
  library.impl("where.self", Where);
  library.impl("where.self_out", WhereOut);
}

}  // namespace
}  // namespace valuescope::model
