// What a step takes for its activations, as its allocator sees it, beside what is counted on.
#include "model/step_scratch.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/model/forward_harness.h"

namespace valuescope::model {
namespace {

constexpr int64_t kMany = 64;

// Follows how many bytes of tensors are there, while it is the thread's.
class AllocationWatch : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t bytes, size_t, size_t, c10::Device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    now_ += bytes;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t peak() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return peak_;
  }

 private:
  mutable std::mutex mutex_;
  int64_t now_ = 0, peak_ = 0;
};

int64_t PeakOf(ForwardHarness& harness, int64_t tokens) {
  const auto watch = std::make_shared<AllocationWatch>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, watch);
  harness.Run({{0, 0, tokens}});
  return watch->peak();
}

TEST(StepScratchTest, IsEnoughForEveryFamilyAndTypeAndNotMuchMore) {
  const auto families = std::filesystem::path(VALUESCOPE_SOURCE_DIR) / "tests/golden/families";
  for (const auto& folder : std::filesystem::directory_iterator(families)) {
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      const auto model = Transformer::Load(folder.path(), {.dtype = dtype});
      ASSERT_TRUE(model.ok()) << model.status();
      for (const int64_t tokens : {int64_t{1}, int64_t{7}, kMany}) {
        ForwardHarness harness(**model, {std::vector<int64_t>(static_cast<size_t>(tokens), 3)});
        PeakOf(harness, tokens);  // what is made once is not a step's
        const int64_t peak = PeakOf(harness, tokens);
        const int64_t counted =
            StepScratchBytes((*model)->architecture(), c10::kCPU, dtype, tokens);
        EXPECT_LE(peak, counted) << folder << " " << NameOf(dtype) << ", tokens " << tokens;
        if (tokens == kMany) {
          EXPECT_GT(3 * peak, counted) << folder << " " << NameOf(dtype);
        }
      }
    }
  }
}

}  // namespace
}  // namespace valuescope::model
