// The shared library behind cuda_devices.h: the only code that includes or links CUDA. Opening it
// brings libtorch's CUDA operators into the process.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include "base/error.h"
#include "cuda/cuda_devices.h"

namespace valuescope::cuda {
namespace {

class RecordedGraph : public engine::RecordedWork {
 public:
  RecordedGraph(at::cuda::MempoolId_t memory, const std::function<void()>& work) {
    // Other threads, which serve other models, may go on allocating.
    graph_.capture_begin(memory, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      try {
        graph_.capture_end();
      } catch (...) {
        // Nothing but the first failure is worth telling.
      }
      throw;
    }
    graph_.capture_end();
  }

  void Repeat() override { graph_.replay(); }

 private:
  at::cuda::CUDAGraph graph_;
};

class GraphRecorder : public engine::WorkRecorder {
 public:
  std::unique_ptr<engine::RecordedWork> Record(const std::function<void()>& work) override {
    return std::make_unique<RecordedGraph>(memory_, work);
  }

 private:
  const at::cuda::MempoolId_t memory_ = at::cuda::graph_pool_handle();
};

class RealDevices : public Devices {
 public:
  int count() const override { return c10::cuda::device_count(); }

  std::string NameOf(int device) const override {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) return "unknown GPU";
    return properties.name;
  }

  absl::StatusOr<DeviceMemory> MemoryOf(int device) const override {
    size_t free = 0, total = 0;
    try {
      const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
      if (const cudaError_t error = cudaMemGetInfo(&free, &total); error != cudaSuccess) {
        return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "CUDA_FAILED",
                               cudaGetErrorString(error));
      }
      const auto statistics =
          c10::cuda::CUDACachingAllocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
      return DeviceMemory{.free = static_cast<int64_t>(free),
                          .total = static_cast<int64_t>(total),
                          .allocated = statistics.allocated_bytes[0].current,
                          .reserved = statistics.reserved_bytes[0].current};
    } catch (const std::exception&) {
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "CUDA_FAILED",
                             "the device does not answer");
    }
  }

  std::unique_ptr<engine::WorkRecorder> MakeRecorder() const override {
    return std::make_unique<GraphRecorder>();
  }
};

}  // namespace
}  // namespace valuescope::cuda

extern "C" __attribute__((visibility("default"))) const valuescope::cuda::Devices*
valuescope_cuda_devices() {
  static const valuescope::cuda::RealDevices devices;
  // cuDNN's attention makes a plan for every shape that it meets, and picks other kernels for them.
  at::globalContext().setSDPUseCuDNN(false);
  return &devices;
}
