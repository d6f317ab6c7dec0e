// Makes the weights that gradients need (gradients.h) from a model's files.
#ifndef VALUESCOPE_MODEL_GRADIENT_WEIGHTS_H_
#define VALUESCOPE_MODEL_GRADIENT_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "base/dtype.h"
#include "base/memory_ledger.h"
#include "model/gradients.h"
#include "model/linear.h"
#include "model/site.h"
#include "model/weights.h"

namespace valuescope::model {

// A projection where it stands in the forward pass.
struct PlacedProjection {
  const Projection& projection;
  Wire reads;                        // what it multiplies is made of
  std::vector<std::string> weights;  // names of what its weight has one under the other
};

// Transformer::GradientWeightBytes of the path that passes these, which are packed on a CPU alone.
int64_t GradientWeightBytes(const std::vector<PlacedProjection>& passed, DType dtype);

// Transformer::MakeGradientWeights of `path`, which passes these. `memory` may be null.
absl::StatusOr<std::shared_ptr<const GradientWeights>> MakeGradientWeights(
    const GradientPath& path, const std::vector<PlacedProjection>& passed,
    const StoredWeights& stored, DType dtype, const MemoryLedger* memory,
    const Cancellation& cancellation);

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_GRADIENT_WEIGHTS_H_
