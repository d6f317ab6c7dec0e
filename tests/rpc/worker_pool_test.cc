#include "rpc/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
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

// Work of tenants that stays until it is let go of, and the pool that it is submitted to.
class HeldWork {
 public:
  explicit HeldWork(WorkerPoolOptions options) : pool_(options) {}
  bool Submit(const std::string& tenant, int count) {
    for (int i = 0; i < count; ++i) {
      std::function<void()> work = [this, tenant] {
        absl::MutexLock lock(&mutex_);
        order_.push_back(tenant);
        ++running_;
        mutex_.Await(absl::Condition(&released_));
      };
      if (!pool_.TrySubmit(work, tenant)) return false;
    }
    return true;
  }
  void AwaitRunning(int count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return running_ == count; };
    mutex_.Await(absl::Condition(&enough));
  }
  std::vector<std::string> order() {
    absl::MutexLock lock(&mutex_);
    return order_;
  }
  void Release() {
    absl::MutexLock lock(&mutex_);
    released_ = true;
  }

 private:
  absl::Mutex mutex_;
  bool released_ = false;
  int running_ = 0;
  std::vector<std::string> order_;
  WorkerPool pool_;  // last: its threads end before what they use
};

TEST(WorkerPoolTest, WhereOneTenantHasAllThreadsAndPlacesAnotherOneIsServedAtOnce) {
  HeldWork held({.max_threads = 16, .max_queued = 16});
  EXPECT_TRUE(held.Submit("flood", 16));
  held.AwaitRunning(16);
  EXPECT_TRUE(held.Submit("flood", 16));
  EXPECT_FALSE(held.Submit("flood", 1));
  EXPECT_TRUE(held.Submit("guest", 1));
  held.AwaitRunning(17);
  EXPECT_EQ(held.order().back(), "guest");
  EXPECT_TRUE(held.Submit("guest2", 1));
  held.AwaitRunning(18);
  EXPECT_TRUE(held.Submit("guest3", 1));  // waits, and is the first one then
  held.Release();
}

TEST(WorkerPoolTest, OfThoseWhoWaitTheTenantOfWhichLeastRunsComesFirst) {
  absl::Mutex mutex;
  std::string order;
  absl::Notification both_run, release, all_ran;
  WorkerPool pool({.max_threads = 2, .max_queued = 16});
  absl::BlockingCounter started(2);
  std::function<void()> first = [&] {
    started.DecrementCount();
    both_run.WaitForNotification();
  };
  std::function<void()> second = [&] {
    started.DecrementCount();
    release.WaitForNotification();
  };
  ASSERT_TRUE(pool.TrySubmit(first, "a"));
  ASSERT_TRUE(pool.TrySubmit(second, "a"));
  started.Wait();
  for (const char* tenant : {"a", "a", "b"}) {
    std::function<void()> work = [&, tenant] {
      absl::MutexLock lock(&mutex);
      order += tenant;
      if (order.size() == 3) all_ran.Notify();
    };
    ASSERT_TRUE(pool.TrySubmit(work, tenant));
  }
  both_run.Notify();
  all_ran.WaitForNotification();
  release.Notify();
  EXPECT_EQ(order, "baa");
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
