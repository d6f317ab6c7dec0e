#include "rpc/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

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

// Sanitizers reserve address space without end, so it cannot be what runs out.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(WorkerPoolDeathTest, WithoutMemoryForAThreadWorkWaitsForOneOrIsRefused) {
  const auto run = [] {
    WorkerPool fresh({.max_threads = 1, .max_queued = 3}), warm({.max_threads = 2});
    absl::Notification started, release;
    std::function<void()> first = [&] {
      started.Notify();
      release.WaitForNotification();
    };
    if (!warm.TrySubmit(first)) exit(1);
    started.WaitForNotification();
    const rlimit nothing{1 << 20, 1 << 20};
    setrlimit(RLIMIT_AS, &nothing);
    std::atomic<bool> ran = false;
    std::function<void()> work = [&] { ran = true; };
    if (fresh.TrySubmit(work) || work == nullptr) exit(2);
    if (!warm.TrySubmit(work) || ran) exit(3);  // behind the first, on its thread
    std::function<void()> last = [&] { _exit(ran ? 0 : 4); };
    if (!warm.TrySubmit(last)) exit(5);
    release.Notify();
    while (true) pause();
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), "");
}
#endif

}  // namespace
}  // namespace valuescope::rpc
