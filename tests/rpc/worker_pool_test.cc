#include "rpc/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"

namespace valuescope::rpc {
namespace {

TEST(WorkerPoolTest, RunsAsMuchAtOnceAsItHasThreadsAndQueuesTheRest) {
  absl::Notification release;
  absl::BlockingCounter started(2);
  std::atomic<int> ran = 0;
  {
    WorkerPool pool({.max_threads = 2, .max_queued = 3});
    for (int i = 0; i < 2; ++i) {
      std::function<void()> work = [&] {
        started.DecrementCount();
        release.WaitForNotification();
        ++ran;
      };
      ASSERT_TRUE(pool.TrySubmit(work));
    }
    started.Wait();
    for (int i = 0; i < 3; ++i) {
      std::function<void()> work = [&] { ++ran; };
      ASSERT_TRUE(pool.TrySubmit(work));
    }
    std::function<void()> refused = [&] { ran = 1000; };
    EXPECT_FALSE(pool.TrySubmit(refused));
    EXPECT_TRUE(refused != nullptr);
    release.Notify();
  }
  EXPECT_EQ(ran, 5);  // what was accepted runs, also when the pool ends
}

}  // namespace
}  // namespace valuescope::rpc
