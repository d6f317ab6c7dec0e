// Where tests run that can run anywhere: on the CPU, or on the device that VALUESCOPE_TEST_DEVICE
// names (tests/gpu sets it).
#ifndef VALUESCOPE_TESTS_MODEL_TEST_DEVICE_H_
#define VALUESCOPE_TESTS_MODEL_TEST_DEVICE_H_

#include <c10/core/Device.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/check.h"
#include "cuda/cuda_devices.h"

namespace valuescope::model {

// What the device needs, opened once; null for the CPU.
inline const ::valuescope::cuda::Devices* TestGpus(const std::string& device) {
  if (device == "cpu") return nullptr;
  const auto programs = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  const auto opened =
      ::valuescope::cuda::OpenDevices((programs / "../server/libvaluescope_cuda.so").string());
  if (!opened.ok()) std::fprintf(stderr, "%s\n", opened.status().ToString().c_str());
  VS_CHECK(opened.ok());
  return *opened;
}

inline const std::string& TestDeviceName() {
  static const std::string name = [] {
    const char* asked = std::getenv("VALUESCOPE_TEST_DEVICE");
    return std::string(asked == nullptr ? "cpu" : asked);
  }();
  static const bool opened = (TestGpus(name), true);
  (void)opened;
  return name;
}

inline c10::Device TestDevice() { return c10::Device(TestDeviceName()); }

}  // namespace valuescope::model

#endif  // VALUESCOPE_TESTS_MODEL_TEST_DEVICE_H_
