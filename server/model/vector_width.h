// Which of base/vectorised.h's vectors a kernel holds its sums in. Results are the same bit for
// bit: every number has a lane of its own in both.
#ifndef VALUESCOPE_MODEL_VECTOR_WIDTH_H_
#define VALUESCOPE_MODEL_VECTOR_WIDTH_H_

#include <ATen/Version.h>

namespace valuescope::model::cpu {

// Whether registers of 64 bytes are at hand, as libtorch sees it: ATEN_CPU_CAPABILITY=avx2 denies
// them, so that one machine runs both.
inline bool HasWholeVectors() {
  static const bool has = at::get_cpu_capability() == "AVX512";
  return has;
}

}  // namespace valuescope::model::cpu

#endif  // VALUESCOPE_MODEL_VECTOR_WIDTH_H_
