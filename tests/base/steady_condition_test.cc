#include "base/steady_condition.h"

#include <gtest/gtest.h>

#include <thread>

namespace valuescope {
namespace {

TEST(SteadyConditionTest, ASignalEndsAWaitLongBeforeItsDeadline) {
  absl::Mutex mutex;
  SteadyCondition changed;
  bool told = false;
  std::thread teller([&] {
    absl::MutexLock lock(&mutex);
    told = true;
    changed.SignalAll();
  });
  {
    absl::MutexLock lock(&mutex);
    const absl::Time deadline = Clock::Steady().Now() + absl::Hours(1);
    while (!told) EXPECT_FALSE(changed.WaitWithDeadline(&mutex, deadline));
  }
  teller.join();
}

TEST(SteadyConditionTest, WithoutASignalTheWaitEndsAtItsDeadlineAndNotBefore) {
  absl::Mutex mutex;
  SteadyCondition never;
  absl::MutexLock lock(&mutex);
  const absl::Time deadline = Clock::Steady().Now() + absl::Milliseconds(20);
  while (!never.WaitWithDeadline(&mutex, deadline)) {
  }
  EXPECT_GE(Clock::Steady().Now(), deadline);
  EXPECT_TRUE(never.WaitWithDeadline(&mutex, deadline)) << "it has passed";
}

}  // namespace
}  // namespace valuescope
