#include "rpc/alarm_clock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace valuescope::rpc {
namespace {

using testing::ElementsAre;

TEST(AlarmClockTest, AlarmsRingInTheOrderOfTheirTimes) {
  AlarmClock clock;
  std::vector<int> rung;
  absl::Notification last;
  const auto ring = [&](int number) {
    return [&, number] {
      rung.push_back(number);
      if (number == 2) last.Notify();
      return absl::InfiniteFuture();
    };
  };
  Alarm never(&clock, ring(0)), second(&clock, ring(2)), first(&clock, ring(1));
  never.RingAt(absl::Now() + absl::Hours(1));
  second.RingAt(absl::Now() + absl::Milliseconds(30));
  first.RingAt(absl::Now() + absl::Hours(1));
  first.RingAt(absl::Now() + absl::Milliseconds(10));  // instead
  last.WaitForNotification();
  EXPECT_THAT(rung, ElementsAre(1, 2));
}

TEST(AlarmClockTest, AnAlarmRingsAgainWhenItSays) {
  AlarmClock clock;
  std::atomic<int> rings = 0;
  absl::Notification third;
  Alarm alarm(&clock, [&] {
    if (++rings == 3) third.Notify();
    return rings < 3 ? absl::Now() : absl::InfiniteFuture();
  });
  alarm.RingAt(absl::InfinitePast());
  third.WaitForNotification();
  EXPECT_EQ(rings, 3);
}

TEST(AlarmClockTest, ACancelWaitsForTheEndOfARingAndNoneFollows) {
  AlarmClock clock;
  for (int round = 0; round < 50; ++round) {
    absl::Notification ringing;
    std::atomic<bool> over = false;
    Alarm alarm(&clock, [&] {
      EXPECT_FALSE(over);
      if (!ringing.HasBeenNotified()) ringing.Notify();
      return absl::Now();
    });
    alarm.RingAt(absl::Now());
    ringing.WaitForNotification();
    alarm.Cancel();
    over = true;
    alarm.RingAt(absl::Now());
  }
}

TEST(AlarmClockTest, AlarmsAreSetAndCancelledFromManyThreads) {
  AlarmClock clock;
  std::atomic<int64_t> rings = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 200; ++round) {
        Alarm alarm(&clock, [&] {
          ++rings;
          return absl::Now();
        });
        alarm.RingAt(absl::Now() + absl::Microseconds(round % 3 * i));
        if (round % 2 == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  absl::Notification after;
  Alarm alarm(&clock, [&] {
    after.Notify();
    return absl::InfiniteFuture();
  });
  alarm.RingAt(absl::Now());
  after.WaitForNotification();
}

}  // namespace
}  // namespace valuescope::rpc
