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
  absl::MutexLock lock(&mutex_);
  if (num_waiting_ == options_.max_waiting) return reception->Refuse(TooManyWaiting(num_waiting_));
  std::deque<Reception*>& queue = waiting_[sender];
  if (queue.empty()) turns_.push_back(sender);
  queue.push_back(reception);
  ++num_waiting_;
  alarm_.RingAt(Settle());
}

bool ReceiveGate::Leave(Reception* reception) {
  absl::MutexLock lock(&mutex_);
  bool left = false;
  for (std::deque<Begun>* begun : {&fresh_, &large_}) {
    const auto place = std::find_if(begun->begin(), begun->end(), [reception](const Begun& one) {
      return one.reception == reception;
    });
    if (place == begun->end()) continue;
    begun->erase(place);
    left = true;
  }
  if (!left) return RemoveWaiting(reception);
  if (num_waiting_ > 0) alarm_.RingAt(Settle());
  return true;
}

bool ReceiveGate::LeaveQueue(Reception* reception) {
  absl::MutexLock lock(&mutex_);
  return RemoveWaiting(reception);
}

absl::Time ReceiveGate::Ring() {
  absl::MutexLock lock(&mutex_);
  return Settle();
}

absl::Time ReceiveGate::Settle() {
  const absl::Time now = absl::Now();
  while (num_waiting_ > 0) {
    if (fresh_.size() == options_.max_fresh) {
      const absl::Time due = fresh_.front().when + options_.fresh_time;
      if (due > now) return due;
      MoveOn(now);
    }
    Reception* const next = TakeNext();
    fresh_.push_back({.reception = next, .when = now});
    next->Begin();
  }
  return absl::InfiniteFuture();
}

void ReceiveGate::MoveOn(absl::Time now) {
  const Begun oldest = fresh_.front();
  fresh_.pop_front();
  if (large_.size() == options_.max_large) {
    if (large_.front().when + options_.large_time > now) {
      return oldest.reception->Refuse(TooManyLarge(large_.size()));
    }
    Reception* const slow = large_.front().reception;
    large_.pop_front();
    slow->Refuse(TooSlow(options_.large_time));
  }
  large_.push_back(oldest);
}

ReceiveGate::Reception* ReceiveGate::TakeNext() {
  const auto sender = waiting_.find(turns_.front());
  turns_.pop_front();
  Reception* const next = sender->second.front();
  sender->second.pop_front();
  --num_waiting_;
  if (sender->second.empty()) {
    waiting_.erase(sender);
  } else {
    turns_.push_back(sender->first);
  }
  return next;
}

bool ReceiveGate::RemoveWaiting(Reception* reception) {
  for (auto& [sender, queue] : waiting_) {
    const auto place = std::find(queue.begin(), queue.end(), reception);
    if (place == queue.end()) continue;
    queue.erase(place);
    --num_waiting_;
    if (queue.empty()) {
      turns_.erase(std::find(turns_.begin(), turns_.end(), sender));
      waiting_.erase(sender);
    }
    return true;
  }
  return false;
}

}  // namespace valuescope::rpc
