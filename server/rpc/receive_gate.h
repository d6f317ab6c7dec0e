// Whose messages may come in just now. A message takes its memory while it comes, before anybody
// knows how long it is, so only some may come at a time and the others wait with the sender: what
// gRPC takes of a message that nobody has asked for is 64 KiB.
//
// Most messages are small and are here as soon as they are asked for. So each is let in as if it
// were, and one that is not here after a moment goes on among the few large ones; where there are
// enough of these, it is told to come back. Senders, which are connections, take turns, so that
// none of them keeps the others out by sending much, and those whose messages were not here in time
// have every eighth turn only while others wait: so the small ones do not wait for more than
// moments, whatever the large ones and the slow ones do.
#ifndef VALUESCOPE_RPC_RECEIVE_GATE_H_
#define VALUESCOPE_RPC_RECEIVE_GATE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "rpc/alarm_clock.h"

namespace valuescope::rpc {

// The largest number of messages on their way in is max_fresh + max_large.
struct ReceiveGateOptions {
  size_t max_fresh = 2;
  size_t max_large = 4;
  size_t max_waiting = 1024;
  absl::Duration fresh_time = absl::Milliseconds(100);
  // What a large message has for itself; afterwards it gives way where another comes.
  absl::Duration large_time = absl::Seconds(30);
};

// Thread-safe.
class ReceiveGate {
 public:
  // A message that is to come. Both are called by whichever thread is in the gate, without a lock,
  // and do not block.
  class Reception {
   public:
    virtual ~Reception() = default;
    // Its turn has come: the message may be asked for. Called once at most.
    virtual void Begin() = 0;
    // Before Begin or after, and the last that the gate says: RESOURCE_EXHAUSTED
    // (REQUEST_MEMORY_FULL or QUEUE_FULL, retry later), or what RefuseAll says. It may be gone
    // afterwards.
    virtual void Refuse(const absl::Status& why) = 0;
  };

  // The clock outlives the gate.
  ReceiveGate(AlarmClock* clock, ReceiveGateOptions options)
      : options_(options), alarm_(clock, [this] { return Ring(); }) {}
  ReceiveGate(const ReceiveGate&) = delete;
  ReceiveGate& operator=(const ReceiveGate&) = delete;

  // Begins or refuses `reception` now or later, until it leaves.
  void Enter(const std::string& sender, Reception* reception);

  // It came, or never will: the gate says no more to it. False where it was refused already, or is
  // about to be.
  bool Leave(Reception* reception);

  // The same for one that has not begun; false where it has, or is about to.
  bool LeaveQueue(Reception* reception);

  // Refuses those that wait, and those that have begun if `begun` says so.
  void RefuseAll(const absl::Status& why, bool begun);

 private:
  struct Begun {
    Reception* reception;
    std::string sender;
    absl::Time when;
  };
  // What a reception is to be told: to begin, or why it is refused.
  struct News {
    Reception* reception;
    std::optional<absl::Status> refusal;
  };
  using Turns = std::deque<std::string>;

  absl::Time Ring();
  // Says what there is to be said, unless somebody does so already. gRPC may run callbacks of other
  // calls while it is called, so no lock is held.
  void Tell();
  // Lets in as many as there is room for, and makes room where it is time to. Returns when it is
  // time next.
  absl::Time Settle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The less the more senders wait, of whom nobody knows yet whether they are slow.
  absl::Duration FreshTime() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The oldest of the fresh ones is fresh no longer.
  void MoveOn(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeNext(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The last of whoever has most waiting makes room.
  void RefuseOne() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Turns& TurnsOf(const std::string& sender) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetSlow(const std::string& sender, bool slow) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool RemoveWaiting(Reception* reception) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ReceiveGateOptions options_;
  absl::Mutex mutex_;
  // Those that have begun, the oldest first.
  std::deque<Begun> fresh_ ABSL_GUARDED_BY(mutex_);
  std::deque<Begun> large_ ABSL_GUARDED_BY(mutex_);
  // Those that wait, by sender, and whose turn it is: a sender is in the first, and in the turns of
  // its kind, while it has some that wait.
  std::map<std::string, std::deque<Reception*>> waiting_ ABSL_GUARDED_BY(mutex_);
  Turns turns_ ABSL_GUARDED_BY(mutex_);
  Turns slow_turns_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> slow_ ABSL_GUARDED_BY(mutex_);  // senders whose last was not here in time
  size_t num_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t turns_taken_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<News> news_ ABSL_GUARDED_BY(mutex_);
  bool telling_ ABSL_GUARDED_BY(mutex_) = false;
  Alarm alarm_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_RECEIVE_GATE_H_
