#include "engine/device_queue.h"

#include <ATen/ops/empty_like.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace valuescope::engine {

void DeviceQueue::TakeThread() {
  if (device_.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device_.type());
  guard.setDevice(device_);
  guard.synchronizeDevice(device_.index());
  guard.exchangeStream(guard.getStreamFromGlobalPool(device_));
}

void DeviceQueue::Wait() const {
  if (device_.is_cpu()) return;
  const c10::impl::VirtualGuardImpl guard(device_.type());
  guard.synchronizeStream(guard.getStream(device_));
}

at::Tensor DeviceQueue::ToHost(const at::Tensor& x) const {
  if (x.is_cpu()) return x.contiguous();
  at::Tensor host = at::empty_like(x, x.options().device(at::kCPU).pinned_memory(true),
                                   at::MemoryFormat::Contiguous);
  host.copy_(x, /*non_blocking=*/true);
  Wait();
  return host;
}

}  // namespace valuescope::engine
