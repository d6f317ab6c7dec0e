// A thread's place in the queue of a GPU's work. On a CPU work is done when it was asked for, and
// nothing here does anything.
#ifndef VALUESCOPE_ENGINE_DEVICE_QUEUE_H_
#define VALUESCOPE_ENGINE_DEVICE_QUEUE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

namespace valuescope::engine {

class DeviceQueue {
 public:
  explicit DeviceQueue(c10::Device device) : device_(device) {}

  // From here on, what the calling thread launches goes to a queue of its own, behind everything
  // that was launched on the device before.
  void TakeThread();

  // Until what the calling thread launched is done.
  void Wait() const;

  // x on the host, contiguous, once all that was launched before is done.
  at::Tensor ToHost(const at::Tensor& x) const;

 private:
  c10::Device device_;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_DEVICE_QUEUE_H_
