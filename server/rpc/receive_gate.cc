#include "rpc/receive_gate.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"

namespace valuescope::rpc {
namespace {

absl::Status TooManyLarge(size_t count) {
  return RetryLater("REQUEST_MEMORY_FULL",
                    absl::StrCat(count,
                                 " large messages are on their way to this server, which is as "
                                 "many as may"),
                    absl::Seconds(1));
}

absl::Status TooSlow(absl::Duration time) {
  return RetryLater("REQUEST_MEMORY_FULL",
                    absl::StrCat("the message was not here after ", absl::FormatDuration(time),
                                 ", and others wait"),
                    absl::Seconds(1));
}

absl::Status TooManyWaiting(size_t count) {
  return RetryLater("QUEUE_FULL",
                    absl::StrCat(count,
                                 " messages wait for their turn to come in, which is as "
                                 "many as may"),
                    absl::Seconds(1));
}

}  // namespace

void ReceiveGate::Enter(const std::string& sender, Reception* reception) {
  {
    absl::MutexLock lock(&mutex_);
    std::deque<Reception*>& queue = waiting_[sender];
    if (queue.empty()) TurnsOf(sender).push_back(sender);
    queue.push_back(reception);
    ++num_waiting_;
    alarm_.RingAt(Settle());
    if (num_waiting_ > options_.max_waiting) RefuseOne();
  }
  Tell();
}

bool ReceiveGate::Leave(Reception* reception) {
  bool left = false;
  {
    absl::MutexLock lock(&mutex_);
    for (std::deque<Begun>* begun : {&fresh_, &large_}) {
      const auto place = std::find_if(begun->begin(), begun->end(), [reception](const Begun& one) {
        return one.reception == reception;
      });
      if (place == begun->end()) continue;
      if (begun == &fresh_) SetSlow(place->sender, false);
      begun->erase(place);
      left = true;
    }
    if (!left) return RemoveWaiting(reception);
    if (num_waiting_ > 0) alarm_.RingAt(Settle());
  }
  Tell();
  return true;
}

bool ReceiveGate::LeaveQueue(Reception* reception) {
  absl::MutexLock lock(&mutex_);
  return RemoveWaiting(reception);
}

void ReceiveGate::RefuseAll(const absl::Status& why, bool begun) {
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [sender, queue] : waiting_) {
      for (Reception* reception : queue) news_.push_back({reception, why});
    }
    waiting_.clear();
    turns_.clear();
    slow_turns_.clear();
    num_waiting_ = 0;
    for (std::deque<Begun>* group : {&fresh_, &large_}) {
      if (!begun) break;
      for (const Begun& one : *group) news_.push_back({one.reception, why});
      group->clear();
    }
  }
  Tell();
}

absl::Time ReceiveGate::Ring() {
  absl::Time next;
  {
    absl::MutexLock lock(&mutex_);
    next = Settle();
  }
  Tell();
  return next;
}

void ReceiveGate::Tell() {
  absl::MutexLock lock(&mutex_);
  if (telling_) return;
  telling_ = true;
  while (!news_.empty()) {
    const News news = std::move(news_.front());
    news_.pop_front();
    mutex_.Unlock();
    if (news.refusal) {
      news.reception->Refuse(*news.refusal);
    } else {
      news.reception->Begin();
    }
    mutex_.Lock();
  }
  telling_ = false;
}

absl::Time ReceiveGate::Settle() {
  const absl::Time now = absl::Now();
  while (num_waiting_ > 0) {
    if (fresh_.size() == options_.max_fresh) {
      const absl::Time due = fresh_.front().when + FreshTime();
      if (due > now) return due;
      MoveOn(now);
    }
    TakeNext(now);
  }
  return absl::InfiniteFuture();
}

absl::Duration ReceiveGate::FreshTime() const {
  constexpr size_t kCrowd = 8;
  return options_.fresh_time / static_cast<int64_t>(1 + turns_.size() / kCrowd);
}

void ReceiveGate::MoveOn(absl::Time now) {
  Begun oldest = std::move(fresh_.front());
  fresh_.pop_front();
  SetSlow(oldest.sender, true);
  if (large_.size() == options_.max_large) {
    if (large_.front().when + options_.large_time > now) {
      news_.push_back({oldest.reception, TooManyLarge(large_.size())});
      return;
    }
    news_.push_back({large_.front().reception, TooSlow(options_.large_time)});
    large_.pop_front();
  }
  large_.push_back(std::move(oldest));
}

void ReceiveGate::TakeNext(absl::Time now) {
  constexpr uint64_t kTurnsToOneOfTheSlow = 8;
  const bool slow =
      turns_.empty() || (!slow_turns_.empty() && turns_taken_ % kTurnsToOneOfTheSlow == 0);
  ++turns_taken_;
  Turns& turns = slow ? slow_turns_ : turns_;
  const std::string sender = std::move(turns.front());
  turns.pop_front();
  const auto queue = waiting_.find(sender);
  Reception* const next = queue->second.front();
  queue->second.pop_front();
  --num_waiting_;
  if (queue->second.empty()) {
    waiting_.erase(queue);
  } else {
    turns.push_back(sender);
  }
  fresh_.push_back({.reception = next, .sender = sender, .when = now});
  news_.push_back({next, std::nullopt});
}

void ReceiveGate::RefuseOne() {
  const auto longest = std::max_element(
      waiting_.begin(), waiting_.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  Reception* const last = longest->second.back();
  RemoveWaiting(last);
  news_.push_back({last, TooManyWaiting(num_waiting_)});
}

ReceiveGate::Turns& ReceiveGate::TurnsOf(const std::string& sender) {
  return slow_.contains(sender) ? slow_turns_ : turns_;
}

void ReceiveGate::SetSlow(const std::string& sender, bool slow) {
  if (slow_.contains(sender) == slow) return;
  // Senders that are long gone are forgotten with all others now and then.
  if (slow_.size() >= options_.max_waiting) {
    slow_.clear();
    turns_.insert(turns_.end(), slow_turns_.begin(), slow_turns_.end());
    slow_turns_.clear();
  }
  const bool waits = waiting_.contains(sender);
  if (waits) std::erase(TurnsOf(sender), sender);
  if (slow) {
    slow_.insert(sender);
  } else {
    slow_.erase(sender);
  }
  if (waits) TurnsOf(sender).push_back(sender);
}

bool ReceiveGate::RemoveWaiting(Reception* reception) {
  for (auto& [sender, queue] : waiting_) {
    const auto place = std::find(queue.begin(), queue.end(), reception);
    if (place == queue.end()) continue;
    queue.erase(place);
    --num_waiting_;
    if (queue.empty()) {
      std::erase(TurnsOf(sender), sender);
      waiting_.erase(sender);
    }
    return true;
  }
  return false;
}

}  // namespace valuescope::rpc
