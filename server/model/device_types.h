// Between our element types and torch's.
#ifndef VALUESCOPE_MODEL_DEVICE_TYPES_H_
#define VALUESCOPE_MODEL_DEVICE_TYPES_H_

#include <c10/core/ScalarType.h>

#include "base/dtype.h"

namespace valuescope::model {

constexpr c10::ScalarType ScalarTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return c10::kFloat;
    case DType::kFloat16:
      return c10::kHalf;
    case DType::kBFloat16:
      return c10::kBFloat16;
    case DType::kFloat64:
      return c10::kDouble;
    case DType::kInt32:
      return c10::kInt;
    case DType::kInt64:
      return c10::kLong;
  }
  return c10::kFloat;
}

}  // namespace valuescope::model

#endif  // VALUESCOPE_MODEL_DEVICE_TYPES_H_
