#include "model/work_shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace valuescope::model {
namespace {

TEST(WorkShares, AreTakenInOrderAndMoreAtOnceWhileMuchIsLeft) {
  WorkShares shares(128, 2, 2);
  std::vector<int64_t> sizes;
  int64_t next = 0;
  while (next < 64) {
    const Taken taken = shares.Take(0);
    EXPECT_EQ(taken.items.first, next);
    next = taken.items.end;
    EXPECT_EQ(taken.goes_on, next < 64);
    sizes.push_back(taken.items.size());
  }
  EXPECT_EQ(next, 64);
  EXPECT_EQ(sizes.front(), 16);
  EXPECT_TRUE(std::is_sorted(sizes.rbegin(), sizes.rend()));
  EXPECT_EQ(sizes.back(), 2);
}

TEST(WorkShares, ThatNobodyElseCanTakeAreOnePiece) {
  WorkShares shares(64, 1, 2);
  EXPECT_EQ(shares.Take(0).items.size(), 64);
  EXPECT_EQ(shares.Take(0).items.size(), 0);
}

// Thread 0 takes once and is not seen again.
TEST(WorkShares, OfASlowThreadAreTakenFromTheEndByWhoIsDone) {
  WorkShares shares(100, 2, 1);
  const Range held = shares.Take(0).items;
  EXPECT_EQ(held.first, 0);
  EXPECT_LT(held.size(), 50);
  std::vector<int> times(100);
  const auto count = [&times](const Range& taken) {
    for (int64_t i = taken.first; i < taken.end; ++i) ++times[static_cast<size_t>(i)];
  };
  count(held);
  int64_t end = 0;  // of what was taken of the other share first
  for (Range taken = shares.Take(1).items; taken.size() > 0; taken = shares.Take(1).items) {
    if (taken.first < 50 && end == 0) end = taken.end;
    count(taken);
  }
  EXPECT_EQ(end, 50);
  EXPECT_EQ(times, std::vector<int>(100, 1));
}

TEST(WorkShares, OfManyThreadsHaveEveryItemOnce) {
  const int before = at::get_num_threads();
  for (const int threads : {1, 2, 3, 16}) {
    at::set_num_threads(threads);
    for (const int64_t count : {0, 1, 2, 15, 1000}) {
      for (const int64_t fewest : {1, 7, 5000}) {
        std::vector<std::atomic<int>> times(static_cast<size_t>(count));
        ForRanges(count, fewest, [&](int64_t begin, int64_t end) {
          EXPECT_LT(begin, end);
          for (int64_t i = begin; i < end; ++i) ++times[static_cast<size_t>(i)];
        });
        for (const auto& each : times) EXPECT_EQ(each, 1) << threads << " " << count;
      }
    }
  }
  at::set_num_threads(before);
}

}  // namespace
}  // namespace valuescope::model
