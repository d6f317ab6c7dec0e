#include "engine/queue_shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace valuescope::engine {
namespace {

constexpr int kRunning = 64, kWaiting = 1024;

class QueueSharesTest : public testing::Test {
 protected:
  using Places = std::vector<std::shared_ptr<const QueueShares::Place>>;

  // Up to `wanted` places for one client.
  Places Take(const std::string& tenant, uint64_t client, int wanted) {
    Places places;
    while (static_cast<int>(places.size()) < wanted) {
      auto place = shares_.Take(tenant, client);
      if (place == nullptr) break;
      places.push_back(std::move(place));
    }
    return places;
  }

  QueueShares shares_{kRunning, kWaiting};
};

TEST_F(QueueSharesTest, AClientAloneGetsAllThatItNeeds) {
  EXPECT_EQ(Take("lab", 1, 64).size(), 64u);
}

TEST_F(QueueSharesTest, ManyLargeCallsLeaveAPlaceForEverybodysFirstRequest) {
  std::vector<Places> calls;
  size_t held = 0;
  for (uint64_t client = 1; client <= 17; ++client) {
    calls.push_back(Take("lab", client, 64));
    EXPECT_GE(calls.back().size(), 1u) << "client " << client;
    held += calls.back().size();
  }
  EXPECT_LT(held, 17u * 64) << "the queue never filled";
  EXPECT_EQ(shares_.Take("lab", 17), nullptr) << "a further one";
  for (uint64_t client = 100; client < 200; ++client) {
    calls.push_back(Take("lab", client, 1));
    EXPECT_EQ(calls.back().size(), 1u) << "client " << client;
  }
}

TEST_F(QueueSharesTest, ATenantHasNoMoreThanItsShareAndOneAlways) {
  constexpr double kShare = 0.25;
  std::vector<std::shared_ptr<const QueueShares::Place>> places;
  for (uint64_t client = 1; client <= kRunning + kWaiting; ++client) {
    if (auto place = shares_.Take("lab", client, kShare)) places.push_back(std::move(place));
  }
  EXPECT_EQ(places.size(), (kRunning + kWaiting) / 4u);
  EXPECT_EQ(shares_.Take("lab", 1, kShare), nullptr);
  EXPECT_NE(shares_.Take("lab", 5000, kShare + 0.1), nullptr) << "it was raised";
  EXPECT_NE(shares_.Take("office", 6000, 1e-9), nullptr) << "the first";
}

TEST_F(QueueSharesTest, ATenantLeavesPlacesForOthers) {
  std::vector<Places> calls;
  for (uint64_t client = 1; client <= kRunning + kWaiting; ++client) {
    calls.push_back(Take("lab", client, 1));
  }
  EXPECT_TRUE(calls.back().empty());
  EXPECT_EQ(Take("office", 5000, 1).size(), 1u);
  EXPECT_EQ(Take("lab", 5001, 1).size(), 0u);
}

TEST_F(QueueSharesTest, TenantsThatFloodLeavePlacesForOneThatAsksNowAndThen) {
  std::vector<Places> calls;
  uint64_t client = 0;
  for (const char* tenant : {"lab", "office", "lab", "office", "school"}) {
    for (int i = 0; i < kRunning + kWaiting; ++i) calls.push_back(Take(tenant, ++client, 1));
  }
  size_t held = 0;
  for (const Places& places : calls) held += places.size();
  EXPECT_GE(held, static_cast<size_t>(kRunning + kWaiting - kWaiting / 8));
  for (int guest = 0; guest < 20; ++guest) {
    calls.push_back(Take("guest" + std::to_string(guest), ++client, 1));
    EXPECT_EQ(calls.back().size(), 1u) << guest;
  }
}

TEST_F(QueueSharesTest, SmallQueuesAreFilledByThoseWhoHoldNothing) {
  QueueShares small(/*max_running=*/2, /*max_waiting=*/16);
  std::vector<std::shared_ptr<const QueueShares::Place>> places;
  for (uint64_t client = 1; client <= 40; ++client) {
    places.push_back(small.Take(client % 2 == 0 ? "lab" : "office", client));
  }
  EXPECT_EQ(std::count(places.begin(), places.end(), nullptr), 40 - 16);
  for (const auto& [guest, client] : {std::pair("a", 100), std::pair("b", 101)}) {
    places.push_back(small.Take(guest, static_cast<uint64_t>(client)));
    EXPECT_NE(places.back(), nullptr) << guest;
  }
  EXPECT_EQ(small.Take("c", 102), nullptr);
}

TEST_F(QueueSharesTest, WhatIsGivenBackIsThereAgain) {
  auto calls = std::make_unique<std::vector<Places>>();
  while (true) {
    Places place = Take("lab", calls->size() + 1, 1);
    if (place.empty()) break;
    calls->push_back(std::move(place));
  }
  const size_t most = calls->size();
  calls->pop_back();
  EXPECT_EQ(Take("lab", 9000, 2).size(), 1u);
  calls.reset();
  size_t again = 0;
  std::vector<Places> others;
  for (uint64_t client = 1; client <= most; ++client) {
    others.push_back(Take("lab", client, 1));
    again += others.back().size();
  }
  EXPECT_EQ(again, most);
}

TEST(RetryOfAFullQueue, IsTheTimeBetweenPlacesThatWereGivenBackOfLate) {
  FakeClock clock;
  QueueShares shares(4, 4, &clock);
  EXPECT_EQ(shares.UntilOneIsFree(), absl::Seconds(1));
  std::deque<std::shared_ptr<const QueueShares::Place>> places;
  for (int i = 0; i < 3; ++i) places.push_back(shares.Take("lab", 0));
  for (int i = 0; i < 40; ++i) {  // of which the last ones count
    clock.Advance(absl::Seconds(i < 20 ? 50 : 8));
    places.pop_front();
    places.push_back(shares.Take("lab", 0));
  }
  EXPECT_EQ(shares.UntilOneIsFree(), absl::Seconds(8));
  clock.Advance(absl::Seconds(32));  // in which none is given back
  EXPECT_EQ(shares.UntilOneIsFree(), absl::Seconds(10));
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(shares.UntilOneIsFree(), absl::Minutes(1));
  places.clear();
  clock.Advance(absl::Hours(1));  // in which nobody asked
  for (int i = 0; i < 3; ++i) places.push_back(shares.Take("lab", 0));
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(shares.UntilOneIsFree(), absl::Seconds(5));
  for (int i = 0; i < 20; ++i) {
    clock.Advance(absl::Milliseconds(10));
    places.pop_front();
    places.push_back(shares.Take("lab", 0));
  }
  EXPECT_EQ(shares.UntilOneIsFree(), absl::Seconds(1));
}

}  // namespace
}  // namespace valuescope::engine
