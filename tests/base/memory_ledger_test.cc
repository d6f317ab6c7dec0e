#include "base/memory_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/error.h"

namespace valuescope {
namespace {

using ::testing::HasSubstr;

bool Never() { return false; }

bool MayComeBack(const absl::Status& refusal) {
  EXPECT_EQ(refusal.code(), absl::StatusCode::kResourceExhausted);
  return DetailsOf(refusal).retry_after.has_value();
}

TEST(MemoryLedgerTest, WhatIsTakenComesBackWithItsLease) {
  MemoryLedger ledger(100);
  std::shared_ptr<MemoryLedger::Lease> lease = *ledger.Take(60);
  EXPECT_TRUE(MayComeBack(ledger.Take(41).status()));
  EXPECT_EQ(lease->Grow(40), absl::OkStatus());
  EXPECT_FALSE(lease->Grow(1).ok());
  EXPECT_EQ(lease->Grow(0), absl::OkStatus());
  lease->ShrinkTo(10);
  EXPECT_EQ(ledger.used(), 10);
  lease.reset();
  EXPECT_EQ(ledger.used(), 0);
}

TEST(MemoryLedgerTest, WhatCouldNeverBeHadIsToldFromWhatOthersHold) {
  MemoryLedger ledger({.capacity = 100,
                       .name = "the shelf",
                       .too_large = "BOOK_TOO_LARGE",
                       .full = "SHELF_FULL",
                       .advice = "bring a smaller one"});
  const auto lease = *ledger.Take(30);
  const absl::Status full = ledger.Take(100).status(), never = ledger.Take(101).status();
  EXPECT_TRUE(MayComeBack(full));
  EXPECT_EQ(DetailsOf(full).reason, "SHELF_FULL");
  EXPECT_THAT(std::string(full.message()), HasSubstr("the shelf is full: 30 of its 100 bytes"));
  EXPECT_FALSE(MayComeBack(never));
  EXPECT_EQ(DetailsOf(never).reason, "BOOK_TOO_LARGE");
  EXPECT_THAT(std::string(never.message()), HasSubstr("bring a smaller one"));
  EXPECT_FALSE(MayComeBack(lease->Grow(71)));  // beside what it has itself
  EXPECT_EQ(ledger.CheckEverFits(100), absl::OkStatus());
  EXPECT_FALSE(MayComeBack(ledger.CheckEverFits(101)));
}

TEST(MemoryLedgerTest, WhatIsSpareIsGivenUpForWhoFindsNoRoom) {
  const MemoryLedger whole(100);
  MemoryLedger part({.capacity = 80}, &whole), other({.capacity = 50}, &whole);
  MemoryLedger::Spare spare(part);
  spare.Keep(*part.Take(60));
  // What does not need it, or what giving it up would not help, leaves it.
  EXPECT_TRUE(other.Take(40).ok());
  EXPECT_FALSE(other.Take(51).ok());
  EXPECT_EQ(whole.used(), 60);
  EXPECT_TRUE(other.Take(50).ok());
  EXPECT_EQ(whole.used(), 0);
  spare.Keep(*part.Take(60));
  const auto lease = *part.Take(20);
  EXPECT_EQ(lease->Grow(1), absl::OkStatus());
  EXPECT_EQ(whole.used(), 21);
}

TEST(MemoryLedgerTest, WhatIsSpareStaysWithWhoSharesItAndGoesWithItsPlace) {
  MemoryLedger ledger(100);
  auto spare = std::make_unique<MemoryLedger::Spare>(ledger);
  const auto shared = *ledger.Take(60);
  spare->Keep(shared);
  EXPECT_TRUE(MayComeBack(ledger.Take(50).status()));
  EXPECT_EQ(ledger.used(), 60);
  spare->Keep(*ledger.Take(30));
  spare->Keep(*ledger.Take(10));
  EXPECT_EQ(ledger.used(), 70);
  spare = nullptr;
  EXPECT_EQ(ledger.used(), 60);
  EXPECT_TRUE(MayComeBack(ledger.Take(50).status()));
}

TEST(MemoryLedgerTest, WhatAPartHoldsTheWholeHoldsToo) {
  MemoryLedger whole({.capacity = 100, .name = "the house", .full = "HOUSE_FULL"});
  MemoryLedger room({.capacity = 80, .too_large = "ROOM_TOO_SMALL", .full = "ROOM_FULL"}, &whole);
  MemoryLedger shelf({.capacity = 90, .too_large = "SHELF_TOO_SMALL", .full = "SHELF_FULL"}, &room);
  auto on_shelf = *shelf.Take(50);
  EXPECT_EQ(room.used(), 50);
  EXPECT_EQ(whole.used(), 50);
  auto elsewhere = *whole.Take(40);
  // By the account that was asked, whoever of them had no room.
  const absl::Status refused = shelf.Take(20).status();
  EXPECT_EQ(DetailsOf(refused).reason, "SHELF_FULL");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("the house is full"));
  EXPECT_TRUE(MayComeBack(refused));
  EXPECT_EQ(shelf.used(), 50);
  EXPECT_EQ(room.used(), 50);
  EXPECT_EQ(whole.used(), 90);
  const absl::Status never = shelf.Take(81).status();
  EXPECT_FALSE(MayComeBack(never));
  EXPECT_EQ(DetailsOf(never).reason, "SHELF_TOO_SMALL");
  elsewhere = nullptr;
  EXPECT_EQ(on_shelf->Grow(30), absl::OkStatus());
  EXPECT_EQ(whole.used(), 80);
  on_shelf->ShrinkTo(1);
  EXPECT_EQ(whole.used(), 1);
  on_shelf = nullptr;
  EXPECT_EQ(shelf.used() + room.used() + whole.used(), 0);
}

TEST(MemoryLedgerTest, ALeaseMayOutliveItsAccountAndStillGivesBackToTheWhole) {
  MemoryLedger whole(100);
  auto part = std::make_unique<MemoryLedger>(MemoryAccount{.capacity = 50}, &whole);
  auto lease = *part->Take(20);
  part = nullptr;
  EXPECT_EQ(whole.used(), 20);
  lease = nullptr;
  EXPECT_EQ(whole.used(), 0);
}

TEST(MemoryLedgerTest, ManyWhoTakeAtOnceNeverHoldMoreThanThereIs) {
  MemoryLedger whole(10);
  MemoryLedger parts[] = {MemoryLedger({.capacity = 7}, &whole),
                          MemoryLedger({.capacity = 7}, &whole)};
  std::atomic<int64_t> held[] = {0, 0};
  std::atomic<bool> exceeded = false;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int turn = 0; turn < 2000; ++turn) {
        const int64_t bytes = 1 + (turn + i) % 5;
        const auto lease = parts[i % 2].Take(bytes);
        if (!lease.ok()) continue;
        const int64_t now = held[i % 2].fetch_add(bytes) + bytes;
        if (now > 7 || now + held[1 - i % 2] > 10) exceeded = true;
        held[i % 2].fetch_sub(bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(whole.used() + parts[0].used() + parts[1].used(), 0);
}

TEST(MemoryLedgerTest, OneAtATimeWaitsForWhatOthersGiveBack) {
  MemoryLedger ledger(100);
  std::shared_ptr<MemoryLedger::Lease> held = *ledger.Take(60);
  const auto waiting = *ledger.Take(20), other = *ledger.Take(20);
  std::atomic<bool> waits = false, grew = false;
  std::thread waiter([&] {
    grew = waiting
               ->GrowInTurn(60, absl::InfiniteFuture(),
                            [&] {
                              waits = true;
                              return false;
                            })
               .ok();
  });
  while (!waits) absl::SleepFor(absl::Milliseconds(1));
  // Somebody waits already, so another hears at once that there is nothing.
  EXPECT_FALSE(other->GrowInTurn(1, absl::InfiniteFuture(), Never).ok());
  EXPECT_FALSE(grew);
  held.reset();
  waiter.join();
  EXPECT_TRUE(grew);
  EXPECT_EQ(ledger.used(), 100);
}

TEST(MemoryLedgerTest, AWaitEndsByItsTimeAndByItsCallerAndIsNotBegunForWhatNeverComes) {
  MemoryLedger ledger(100);
  const auto held = *ledger.Take(100), lease = *ledger.Take(0);
  EXPECT_FALSE(lease->GrowInTurn(1, absl::Now() + absl::Milliseconds(5), Never).ok());
  EXPECT_FALSE(lease->GrowInTurn(1, absl::InfiniteFuture(), [] { return true; }).ok());
  EXPECT_FALSE(MayComeBack(lease->GrowInTurn(101, absl::InfiniteFuture(), Never)));
  held->ShrinkTo(99);
  EXPECT_TRUE(lease->GrowInTurn(1, absl::Now(), Never).ok());
}

}  // namespace
}  // namespace valuescope
