#include "base/memory_ledger.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace valuescope {
namespace {

bool Never() { return false; }

TEST(MemoryLedgerTest, WhatIsTakenComesBackWithItsLease) {
  MemoryLedger ledger(100);
  std::shared_ptr<MemoryLedger::Lease> lease = ledger.Take(60);
  EXPECT_EQ(ledger.Take(41), nullptr);
  EXPECT_TRUE(lease->Grow(40));
  EXPECT_FALSE(lease->Grow(1));
  EXPECT_TRUE(lease->Grow(0));
  lease->ShrinkTo(10);
  EXPECT_EQ(ledger.used(), 10);
  lease.reset();
  EXPECT_EQ(ledger.used(), 0);
}

TEST(MemoryLedgerTest, OneAtATimeWaitsForWhatOthersGiveBack) {
  MemoryLedger ledger(100);
  std::shared_ptr<MemoryLedger::Lease> held = ledger.Take(60);
  const auto waiting = ledger.Take(20), other = ledger.Take(20);
  std::atomic<bool> waits = false, grew = false;
  std::thread waiter([&] {
    grew = waiting->GrowInTurn(60, absl::InfiniteFuture(), [&] {
      waits = true;
      return false;
    });
  });
  while (!waits) absl::SleepFor(absl::Milliseconds(1));
  // Somebody waits already, so another hears at once that there is nothing.
  EXPECT_FALSE(other->GrowInTurn(1, absl::InfiniteFuture(), Never));
  EXPECT_FALSE(grew);
  held.reset();
  waiter.join();
  EXPECT_TRUE(grew);
  EXPECT_EQ(ledger.used(), 100);
}

TEST(MemoryLedgerTest, AWaitEndsByItsTimeAndByItsCaller) {
  MemoryLedger ledger(100);
  const auto held = ledger.Take(100), lease = ledger.Take(0);
  EXPECT_FALSE(lease->GrowInTurn(1, absl::Now() + absl::Milliseconds(5), Never));
  EXPECT_FALSE(lease->GrowInTurn(1, absl::InfiniteFuture(), [] { return true; }));
  held->ShrinkTo(99);
  EXPECT_TRUE(lease->GrowInTurn(1, absl::Now(), Never));
}

}  // namespace
}  // namespace valuescope
