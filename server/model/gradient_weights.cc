#include "model/gradient_weights.h"

#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include "base/error.h"
#include "base/status_macros.h"
#include "model/device_types.h"
#include "model/kernels.h"

namespace valuescope::model {
namespace {

// Null where nobody counts.
absl::StatusOr<std::shared_ptr<const MemoryLedger::Lease>> Take(int64_t bytes,
                                                                const MemoryLedger* memory) {
  if (memory == nullptr) return nullptr;
  return MemoryLedger({.name = "the memory for weights that gradients need",
                       .too_large = "GRADIENT_WEIGHTS_TOO_LARGE",
                       .full = "GRADIENT_MEMORY_FULL",
                       .advice = "ask for gradients of fewer blocks"},
                      memory)
      .Take(bytes);
}

// [in, out]. Part by part, so that there is never much more than one copy.
absl::StatusOr<at::Tensor> ReadTransposed(const PlacedProjection& each, const StoredWeights& stored,
                                          c10::ScalarType type) {
  const at::Tensor whole =
      at::empty({each.projection.in_features(), each.projection.out_features()}, type);
  int64_t column = 0;
  for (const std::string& name : each.weights) {
    VS_ASSIGN_OR_RETURN(const at::Tensor part, stored.ReadAgain(name, type));
    whole.narrow(1, column, part.size(0)).copy_(part.t());
    column += part.size(0);
  }
  VS_RETURN_IF_ERROR(stored.CheckUnchanged());
  return whole;
}

absl::StatusOr<std::unique_ptr<const Linear>> MakeTransposed(const PlacedProjection& each,
                                                             const StoredWeights& stored,
                                                             c10::ScalarType type) {
  const at::Tensor& plain = each.projection.plain();
  if (plain.defined()) return Linear::ShareTransposed(plain);
  VS_ASSIGN_OR_RETURN(const at::Tensor whole, ReadTransposed(each, stored, type));
  return Linear::Create(whole);
}

absl::StatusOr<std::shared_ptr<const GradientWeights>> MakeOrThrow(
    const GradientPath& path, const std::vector<PlacedProjection>& passed,
    const StoredWeights& stored, DType dtype, const MemoryLedger* memory,
    const Cancellation& cancellation) {
  // What is made in inference mode can take no part in a graph.
  const c10::InferenceMode no_inference(false);
  auto weights = std::make_shared<GradientWeights>();
  weights->path = path;
  VS_ASSIGN_OR_RETURN(weights->lease, Take(GradientWeightBytes(passed, dtype), memory));
  for (const PlacedProjection& each : passed) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    VS_ASSIGN_OR_RETURN(weights->transposed[&each.projection],
                        MakeTransposed(each, stored, ScalarTypeOf(dtype)));
  }
  return weights;
}

}  // namespace

int64_t GradientWeightBytes(const std::vector<PlacedProjection>& passed, DType dtype) {
  int64_t bytes = 0;
  for (const PlacedProjection& each : passed) {
    const Projection& projection = each.projection;
    if (projection.plain().defined()) continue;
    bytes += PackedBytes(projection.in_features(), projection.out_features(), ScalarTypeOf(dtype));
  }
  return bytes;
}

absl::StatusOr<std::shared_ptr<const GradientWeights>> MakeGradientWeights(
    const GradientPath& path, const std::vector<PlacedProjection>& passed,
    const StoredWeights& stored, DType dtype, const MemoryLedger* memory,
    const Cancellation& cancellation) {
  try {
    return MakeOrThrow(path, passed, stored, dtype, memory, cancellation);
  } catch (const std::exception&) {
    return NeverFits("GRADIENT_WEIGHTS_TOO_LARGE",
                     "the weights that gradients need do not fit the memory");
  }
}

}  // namespace valuescope::model
