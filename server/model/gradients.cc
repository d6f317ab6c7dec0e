#include "model/gradients.h"

#include <torch/csrc/autograd/autograd.h>

#include "base/check.h"

namespace valuescope::model {

bool Covers(const GradientPath& path, const GradientPath& part, const Architecture& architecture) {
  const auto index = [&](const Wire& wire) { return WireIndex(wire, architecture); };
  return index(path.from) <= index(part.from) && index(part.to) <= index(path.to);
}

at::Tensor GradientWeights::Backward(const Projection& projection,
                                     const at::Tensor& gradient) const {
  const auto found = transposed.find(&projection);
  VS_CHECK(found != transposed.end());
  return found->second->Apply(gradient.contiguous());
}

std::vector<at::Tensor> GradientsOf(const at::Tensor& scalar, const std::vector<at::Tensor>& inputs,
                                    bool keep_graph) {
  VS_CHECK(scalar.numel() == 1 && scalar.requires_grad());
  return torch::autograd::grad({scalar}, inputs, /*grad_outputs=*/{}, keep_graph);
}

}  // namespace valuescope::model
