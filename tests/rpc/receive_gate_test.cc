// Who may send when: the policy of the gate, with senders that never hurry.
#include "rpc/receive_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/error.h"

namespace valuescope::rpc {
namespace {

using testing::ElementsAre;

constexpr absl::Duration kTooLong = absl::Hours(1);

// What the gate said to those that entered it, by their names.
class Log {
 public:
  void Add(const std::string& event) {
    absl::MutexLock lock(&mutex_);
    events_.push_back(event);
  }
  // The events so far, once there are so many.
  std::vector<std::string> WaitFor(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return events_.size() >= count; };
    mutex_.Await(absl::Condition(&enough));
    return events_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::string> events_;
};

class Message : public ReceiveGate::Reception {
 public:
  Message(Log* log, std::string name) : log_(log), name_(std::move(name)) {}
  void Begin() override { log_->Add(name_ + " begins"); }
  void Refuse(const absl::Status& why) override {
    EXPECT_EQ(why.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(DetailsOf(why).retry_after.has_value());
    log_->Add(name_ + " " + DetailsOf(why).reason);
  }

 private:
  Log* const log_;
  const std::string name_;
};

class ReceiveGateTest : public testing::Test {
 protected:
  AlarmClock clock_;
  Log log_;
  Message a_{&log_, "a"}, b_{&log_, "b"}, c_{&log_, "c"}, d_{&log_, "d"};
};

TEST_F(ReceiveGateTest, ASlowMessageHoldsTheOthersUpForAMomentOnly) {
  ReceiveGate gate(&clock_, {.max_fresh = 1,
                             .max_large = 1,
                             .fresh_time = absl::Milliseconds(5),
                             .large_time = kTooLong});
  gate.Enter("one", &a_);
  gate.Enter("two", &b_);
  // `a` goes on as a large one, of which there is one now.
  EXPECT_THAT(log_.WaitFor(2), ElementsAre("a begins", "b begins"));
  gate.Enter("three", &c_);
  EXPECT_THAT(log_.WaitFor(4),
              ElementsAre("a begins", "b begins", "b REQUEST_MEMORY_FULL", "c begins"));
  EXPECT_FALSE(gate.Leave(&b_));
  EXPECT_TRUE(gate.Leave(&a_));
  EXPECT_TRUE(gate.Leave(&c_));
  EXPECT_FALSE(gate.Leave(&c_));
}

TEST_F(ReceiveGateTest, WhoeverHadHisTimeGivesWay) {
  ReceiveGate gate(&clock_, {.max_fresh = 1,
                             .max_large = 1,
                             .fresh_time = absl::Milliseconds(5),
                             .large_time = absl::ZeroDuration()});
  gate.Enter("one", &a_);
  gate.Enter("two", &b_);
  gate.Enter("three", &c_);
  EXPECT_THAT(log_.WaitFor(4),
              ElementsAre("a begins", "b begins", "a REQUEST_MEMORY_FULL", "c begins"));
  EXPECT_TRUE(gate.Leave(&b_));
  EXPECT_TRUE(gate.Leave(&c_));
}

TEST_F(ReceiveGateTest, NobodyIsSentAwayWhileNobodyWaits) {
  ReceiveGate gate(&clock_, {.max_fresh = 2,
                             .max_large = 1,
                             .fresh_time = absl::ZeroDuration(),
                             .large_time = absl::ZeroDuration()});
  gate.Enter("one", &a_);
  gate.Enter("one", &b_);
  EXPECT_THAT(log_.WaitFor(2), ElementsAre("a begins", "b begins"));
  EXPECT_TRUE(gate.Leave(&a_));
  EXPECT_TRUE(gate.Leave(&b_));
}

TEST_F(ReceiveGateTest, SendersTakeTurns) {
  ReceiveGate gate(&clock_, {.max_fresh = 1, .fresh_time = kTooLong});
  Message first{&log_, "first"};
  gate.Enter("busy", &first);
  for (Message* message : {&a_, &b_, &c_}) gate.Enter("busy", message);
  gate.Enter("other", &d_);
  gate.Leave(&first);
  gate.Leave(&a_);
  gate.Leave(&d_);
  gate.Leave(&b_);
  gate.Leave(&c_);
  EXPECT_THAT(log_.WaitFor(5),
              ElementsAre("first begins", "a begins", "d begins", "b begins", "c begins"));
}

TEST_F(ReceiveGateTest, WhoWasSlowWaitsForTheOthersUntilHeIsNot) {
  ReceiveGate gate(&clock_, {.max_fresh = 1, .fresh_time = absl::Milliseconds(300)});
  Message slow{&log_, "slow"}, quick{&log_, "quick"};
  gate.Enter("slow", &slow);
  gate.Enter("quick", &quick);  // whose wait moves the other on, and so it is known
  log_.WaitFor(2);
  gate.Enter("slow", &a_);
  gate.Enter("quick", &b_);
  gate.Leave(&quick);
  EXPECT_THAT(log_.WaitFor(3), ElementsAre("slow begins", "quick begins", "b begins"));
  gate.Leave(&b_);
  EXPECT_EQ(log_.WaitFor(4).back(), "a begins");
  gate.Enter("slow", &c_);
  gate.Enter("quick", &d_);
  gate.Leave(&a_);  // in time
  EXPECT_EQ(log_.WaitFor(5).back(), "d begins");
  gate.Leave(&d_);
  EXPECT_EQ(log_.WaitFor(6).back(), "c begins");
  gate.Leave(&c_);
  gate.Leave(&slow);
}

TEST_F(ReceiveGateTest, WhoeverLeavesTheQueueIsNotCalled) {
  ReceiveGate gate(&clock_, {.max_fresh = 1, .fresh_time = kTooLong});
  gate.Enter("one", &a_);
  gate.Enter("two", &b_);
  gate.Enter("three", &c_);
  EXPECT_THAT(log_.WaitFor(1), ElementsAre("a begins"));
  EXPECT_TRUE(gate.LeaveQueue(&b_));
  EXPECT_FALSE(gate.LeaveQueue(&b_));
  EXPECT_FALSE(gate.LeaveQueue(&a_));  // which has begun
  gate.Leave(&a_);
  EXPECT_THAT(log_.WaitFor(2), ElementsAre("a begins", "c begins"));
  EXPECT_TRUE(gate.Leave(&c_));
}

TEST_F(ReceiveGateTest, AFullQueueRefusesTheLastOfWhoeverHasMost) {
  ReceiveGate gate(&clock_, {.max_fresh = 1, .max_waiting = 2, .fresh_time = kTooLong});
  gate.Enter("busy", &a_);
  gate.Enter("busy", &b_);
  gate.Enter("busy", &c_);
  gate.Enter("other", &d_);
  EXPECT_THAT(log_.WaitFor(2), ElementsAre("a begins", "c QUEUE_FULL"));
  EXPECT_FALSE(gate.Leave(&c_));
  for (Message* message : {&a_, &b_, &d_}) EXPECT_TRUE(gate.Leave(message));
}

TEST_F(ReceiveGateTest, ADrainRefusesThoseThatWaitAndThenTheRest) {
  ReceiveGate gate(&clock_, {.max_fresh = 1, .fresh_time = kTooLong});
  gate.Enter("one", &a_);
  gate.Enter("two", &b_);
  const absl::Status full = RetryLater("DRAINING", "", absl::Seconds(1));
  gate.RefuseAll(full, /*begun=*/false);
  EXPECT_THAT(log_.WaitFor(2), ElementsAre("a begins", "b DRAINING"));
  gate.RefuseAll(full, /*begun=*/true);
  EXPECT_THAT(log_.WaitFor(3), ElementsAre("a begins", "b DRAINING", "a DRAINING"));
  EXPECT_FALSE(gate.Leave(&a_));
  gate.Enter("three", &c_);
  EXPECT_THAT(log_.WaitFor(4), ElementsAre("a begins", "b DRAINING", "a DRAINING", "c begins"));
  EXPECT_TRUE(gate.Leave(&c_));
}

// Begins to come and is here, from another thread or not at all.
class Hurried : public ReceiveGate::Reception {
 public:
  void Begin() override {
    EXPECT_EQ(calls++, 0);
    const int now = ++*in_flight;
    EXPECT_LE(now, most);
    absl::MutexLock lock(&mutex);
    begun = true;
  }
  void Refuse(const absl::Status&) override {
    absl::MutexLock lock(&mutex);
    if (begun) --*in_flight;
    refused = true;
  }

  int most = 0;
  std::atomic<int>* in_flight = nullptr;
  std::atomic<int> calls = 0;
  absl::Mutex mutex;
  bool begun = false, refused = false;
};

TEST_F(ReceiveGateTest, ACrowdOnManyThreadsIsServedOrSentAwayAndNeverMoreAtOnce) {
  constexpr int kThreads = 4, kEach = 500;
  ReceiveGate gate(&clock_, {.max_fresh = 2,
                             .max_large = 1,
                             .max_waiting = 8,
                             .fresh_time = absl::Microseconds(20),
                             .large_time = absl::Microseconds(50)});
  std::atomic<int> in_flight = 0, served = 0;
  const auto one = [&](const std::string& sender, bool waits) {
    Hurried message;
    message.most = 3;
    message.in_flight = &in_flight;
    gate.Enter(sender, &message);
    if (!waits && gate.LeaveQueue(&message)) return;
    {
      absl::MutexLock lock(&message.mutex);
      const auto told = [&] { return message.begun || message.refused; };
      message.mutex.Await(absl::Condition(&told));
    }
    // Before the gate may let another in.
    --in_flight;
    if (gate.Leave(&message)) {
      ++served;
      return;
    }
    ++in_flight;  // the refusal counts it
    absl::MutexLock lock(&message.mutex);
    const auto refused = [&] { return message.refused; };
    message.mutex.Await(absl::Condition(&refused));
  };
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < kEach; ++i) one(std::to_string(random() % 3), random() % 4 != 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(in_flight, 0);
  EXPECT_GT(served, 0);
}

}  // namespace
}  // namespace valuescope::rpc
