#include "cuda/cuda_devices.h"

#include <dlfcn.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::cuda {
namespace {

absl::Status Unavailable(absl::string_view why) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "CUDA_UNAVAILABLE",
                         absl::StrCat("CUDA cannot be used: ", why));
}

}  // namespace

absl::StatusOr<const Devices*> OpenDevices(const std::string& path) {
  // Global, because opening it is what registers CUDA with libtorch.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    return Unavailable(absl::StrCat(
        dlerror(), "; docker/setup --cuda installs what a build with -DTORCH_WHEEL=... needs"));
  }
  using Make = const Devices* (*)();
  const auto make = reinterpret_cast<Make>(dlsym(library, "valuescope_cuda_devices"));
  if (make == nullptr) return Unavailable(absl::StrCat(path, " is another library"));
  const Devices* devices = make();
  if (devices->count() == 0) return Unavailable("this machine has no GPU that its driver shows");
  return devices;
}

absl::StatusOr<const Devices*> OpenDevices() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Unavailable("the server cannot tell where its own file is");
  return OpenDevices((program.parent_path() / "libvaluescope_cuda.so").string());
}

}  // namespace valuescope::cuda
