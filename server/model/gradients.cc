#include "model/gradients.h"

#include <torch/csrc/autograd/autograd.h>

#include "base/check.h"

namespace valuescope::model {

bool Covers(const GradientPath& path, const GradientPath& part, const Architecture& architecture) {
  const auto index = [&](const Wire& wire) { return WireIndex(wire, architecture); };
  return index(path.from) <= index(part.from) && index(part.to) <= index(path.to);
}

std::vector<at::Tensor> GradientsOf(const at::Tensor& scalar, const std::vector<at::Tensor>& inputs,
                                    bool keep_graph) {
  VS_CHECK(scalar.numel() == 1 && scalar.requires_grad());
  return torch::autograd::grad({scalar}, inputs, /*grad_outputs=*/{}, keep_graph);
}

}  // namespace valuescope::model
