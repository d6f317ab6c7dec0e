// Edits of random numbers with every kind of row.
#ifndef VALUESCOPE_TESTS_MODEL_SOME_STAGES_H_
#define VALUESCOPE_TESTS_MODEL_SOME_STAGES_H_

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

#include "model/step.h"

namespace valuescope::model {

// Row 0 inactive, row 1 acts, row 2 preserves norms, row 3 was given back; stale numbers are NaN.
inline at::Tensor SomeActivity() {
  return at::tensor({int{kInactive}, int{kActs}, int{kPreservesNorm}, int{kInactive}}, at::kByte);
}

inline at::Tensor WithStaleRows(at::Tensor table) {
  for (const int64_t row : {0, 3}) table[row].fill_(std::numeric_limits<float>::quiet_NaN());
  return table;
}

inline AddStage SomeAddition(int64_t width) {
  return {.active = SomeActivity(), .rows = WithStaleRows(at::randn({4, width}))};
}

inline ScaleOrSetStage SomeScaling(int64_t width) {
  const at::Tensor factors = at::randn({4, width});
  return {.active = SomeActivity(),
          .factors = WithStaleRows(at::where(at::rand({4, width}) < 0.5, factors, 0)),
          .values = WithStaleRows(at::randn({4, width}))};
}

inline ProjectStage SomeProjection(int64_t width) {
  ProjectStage stage{.active = SomeActivity(),
                     .basis = WithStaleRows(at::randn({4, 3, width}) / std::sqrt(width)),
                     .ranks = at::tensor({0, 2, 3, 1}, at::kLong),
                     .kept = at::tensor({0.0f, 0.25f, 0.0f, 0.0f}),
                     .targets = WithStaleRows(at::randn({4, 3}))};
  // Beyond a row's rank anything may stand.
  stage.basis[1][2].fill_(std::numeric_limits<float>::quiet_NaN());
  stage.targets[1][2].fill_(std::numeric_limits<float>::quiet_NaN());
  return stage;
}

}  // namespace valuescope::model

#endif  // VALUESCOPE_TESTS_MODEL_SOME_STAGES_H_
