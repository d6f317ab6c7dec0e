// What tensors cost: the bytes of a CPU's memory that this thread takes for them while it lives.
#ifndef VALUESCOPE_TESTS_MODEL_TENSOR_BYTES_H_
#define VALUESCOPE_TESTS_MODEL_TENSOR_BYTES_H_

#include <c10/core/Allocator.h>

#include <algorithm>
#include <cstdint>

namespace valuescope::model {

class TensorBytes : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    taken_ += std::max<int64_t>(0, bytes);
    net_ += bytes;
  }
  bool memoryProfilingEnabled() const override { return true; }

  // All that was taken, whether it was given back or not.
  int64_t taken() const { return taken_; }
  // What was taken and not given back.
  int64_t net() const { return net_; }

 private:
  int64_t taken_ = 0, net_ = 0;
};

}  // namespace valuescope::model

#endif  // VALUESCOPE_TESTS_MODEL_TENSOR_BYTES_H_
