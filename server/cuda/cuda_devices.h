// The GPUs of this machine. What needs CUDA's own libraries is in one shared library beside the
// server, opened only where a GPU was asked for: a server without them runs on the CPU, and one
// that cannot open them says which is missing.
#ifndef VALUESCOPE_CUDA_CUDA_DEVICES_H_
#define VALUESCOPE_CUDA_CUDA_DEVICES_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/work_recorder.h"

namespace valuescope::cuda {

struct DeviceMemory {
  int64_t free = 0;       // bytes that nobody holds
  int64_t total = 0;      // bytes of the device
  int64_t allocated = 0;  // bytes in tensors of this process
  int64_t reserved = 0;   // bytes that this process keeps for tensors to come
};

class Devices {
 public:
  virtual ~Devices() = default;

  virtual int count() const = 0;
  // "NVIDIA H100 80GB HBM3". 0 <= device < count().
  virtual std::string NameOf(int device) const = 0;
  // FAILED_PRECONDITION, reason CUDA_FAILED, where the driver refuses.
  virtual absl::StatusOr<DeviceMemory> MemoryOf(int device) const = 0;
  // Records into CUDA graphs that share their memory.
  virtual std::unique_ptr<engine::WorkRecorder> MakeRecorder() const = 0;
};

// Opens the library once; it stays open. FAILED_PRECONDITION, reason CUDA_UNAVAILABLE: what cannot
// be loaded, or that there is no GPU.
absl::StatusOr<const Devices*> OpenDevices();

// The same from the shared library in `path`.
absl::StatusOr<const Devices*> OpenDevices(const std::string& path);

}  // namespace valuescope::cuda

#endif  // VALUESCOPE_CUDA_CUDA_DEVICES_H_
