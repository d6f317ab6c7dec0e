// Opening the library that needs CUDA where it cannot be opened. Nothing behind it is tested: that
// takes a GPU.
#include "cuda/cuda_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace valuescope::cuda {
namespace {

using testing::HasSubstr;

void ExpectUnavailable(const std::string& path, const std::string& why) {
  const auto devices = OpenDevices(path);
  ASSERT_FALSE(devices.ok());
  EXPECT_EQ(devices.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailsOf(devices.status()).reason, "CUDA_UNAVAILABLE");
  EXPECT_THAT(std::string(devices.status().message()), HasSubstr(why));
}

TEST(OpenDevices, NamesTheLibraryThatIsMissing) {
  ExpectUnavailable("/nowhere/libvaluescope_cuda.so",
                    "/nowhere/libvaluescope_cuda.so: cannot open");
}

TEST(OpenDevices, RefusesALibraryOfAnotherKind) {
  ExpectUnavailable("libm.so.6", "another library");
}

}  // namespace
}  // namespace valuescope::cuda
