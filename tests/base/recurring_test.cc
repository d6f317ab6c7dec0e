#include "base/recurring.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace {
// How far the time of day that this program is told is ahead of the one that the kernel waits by:
// to a wait until a time of day, as if the clock had been set back by as much.
std::atomic<time_t> ahead = 0;
}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* time) {
  const long failed = syscall(SYS_clock_gettime, clock, time);
  if (failed == 0 && clock == CLOCK_REALTIME) time->tv_sec += ahead;
  return static_cast<int>(failed);
}

namespace valuescope {
namespace {

constexpr absl::Duration kNever = absl::Hours(1);

// Counts how often it was done.
class Counted {
 public:
  absl::Duration Do(absl::Duration pause) {
    absl::MutexLock lock(&mutex_);
    ++times_;
    return pause;
  }
  void Await(int times) {
    absl::MutexLock lock(&mutex_);
    const auto done = [this, times]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return times_ >= times; };
    mutex_.Await(absl::Condition(&done));
  }

 private:
  absl::Mutex mutex_;
  int times_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(RecurringTest, TheWorkIsDoneAtOnceAndAfterEveryPause) {
  Counted counted;
  Recurring recurring([&] { return counted.Do(absl::Milliseconds(1)); });
  recurring.Start();
  counted.Await(5);
}

TEST(RecurringTest, WakingEndsThePause) {
  Counted counted;
  Recurring recurring([&] { return counted.Do(kNever); });
  recurring.Start();
  for (int times = 1; times <= 3; ++times) {
    counted.Await(times);
    recurring.Wake();
  }
  counted.Await(4);
}

TEST(RecurringTest, WhatIsToldWhileTheWorkIsUnderWayIsLookedAtAgain) {
  Counted counted;
  absl::Notification working, go_on;
  Recurring recurring([&] {
    if (!working.HasBeenNotified()) {
      working.Notify();
      go_on.WaitForNotification();
    }
    return counted.Do(absl::InfiniteDuration());
  });
  recurring.Start();
  working.WaitForNotification();
  recurring.Wake();
  go_on.Notify();
  counted.Await(2);
}

TEST(RecurringTest, StoppingWaitsAsLongAsItMayForTheWorkUnderWay) {
  absl::Notification working, go_on;
  Recurring recurring([&] {
    working.Notify();
    go_on.WaitForNotification();
    return absl::ZeroDuration();
  });
  recurring.Start();
  working.WaitForNotification();
  EXPECT_FALSE(recurring.stopping());
  EXPECT_FALSE(recurring.Stop(absl::Milliseconds(1)));
  EXPECT_TRUE(recurring.stopping());
  go_on.Notify();
  EXPECT_TRUE(recurring.Stop()) << "and the work is not done again";
  EXPECT_TRUE(recurring.Stop());
}

TEST(RecurringTest, OneThatWasNotStartedStops) {
  Recurring recurring([] { return kNever; });
  EXPECT_TRUE(recurring.Stop(absl::ZeroDuration()));
}

TEST(RecurringTest, APauseIsAsLongWhateverTheTimeOfDayIs) {
  const absl::Time before = absl::Now();
  ahead = 3600;
  ASSERT_GT(absl::Now(), before + absl::Minutes(59)) << "the clock is not the one of the test";
  {
    Counted counted;
    Recurring recurring([&] { return counted.Do(absl::Milliseconds(1)); });
    recurring.Start();
    counted.Await(5);
  }
  ahead = 0;
}

}  // namespace
}  // namespace valuescope
