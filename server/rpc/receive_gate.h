// Whose messages may come in just now. A message takes its memory while it comes, before anybody
// knows how long it is, so only some may come at a time and the others wait with the sender: what
// gRPC takes of a message that nobody has asked for is 64 KiB.
//
// Most messages are small and are here as soon as they are asked for. So each is let in as if it
// were, and one that is not here after a moment goes on among the few large ones; where there are
// enough of these, it is told to come back. The small ones therefore never wait for more than
// moments, whatever the large ones and the slow ones do. Senders, which are connections, take
// turns, so that none of them keeps the others out by sending much.
#ifndef VALUESCOPE_RPC_RECEIVE_GATE_H_
#define VALUESCOPE_RPC_RECEIVE_GATE_H_

#include <cstddef>
#include <deque>
#include <map>
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
  size_t max_waiting = 4096;
  absl::Duration fresh_time = absl::Milliseconds(50);
  // What a large message has for itself; afterwards it gives way where another comes.
  absl::Duration large_time = absl::Seconds(30);
};

// Thread-safe.
class ReceiveGate {
 public:
  // A message that is to come. Called with the gate locked: they do not block or call the gate.
  class Reception {
   public:
    virtual ~Reception() = default;
    // Its turn has come: the message may be asked for. Called once at most.
    virtual void Begin() = 0;
    // RESOURCE_EXHAUSTED (REQUEST_MEMORY_FULL or QUEUE_FULL, retry later), before Begin or after.
    // The gate knows it no longer.
    virtual void Refuse(const absl::Status& why) = 0;
  };

  // The clock outlives the gate.
  ReceiveGate(AlarmClock* clock, ReceiveGateOptions options)
      : options_(options), alarm_(clock, [this] { return Ring(); }) {}
  ReceiveGate(const ReceiveGate&) = delete;
  ReceiveGate& operator=(const ReceiveGate&) = delete;

  // Begins or refuses `reception` now or later, until it leaves.
  void Enter(const std::string& sender, Reception* reception);

  // It came, or never will: nothing of it is called afterwards. False where it was refused already.
  bool Leave(Reception* reception);

  // The same for one that has not begun; false where it has, too.
  bool LeaveQueue(Reception* reception);

 private:
  struct Begun {
    Reception* reception;
    absl::Time when;
  };

  absl::Time Ring();
  // Lets in as many as there is room for, and makes room where it is time to. Returns when it is
  // time next.
  absl::Time Settle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The oldest of the fresh ones is fresh no longer.
  void MoveOn(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Reception* TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool RemoveWaiting(Reception* reception) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ReceiveGateOptions options_;
  absl::Mutex mutex_;
  // Those that have begun, the oldest first.
  std::deque<Begun> fresh_ ABSL_GUARDED_BY(mutex_);
  std::deque<Begun> large_ ABSL_GUARDED_BY(mutex_);
  // Those that wait, by sender, and whose turn it is: a sender is in both or in neither.
  std::map<std::string, std::deque<Reception*>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::string> turns_ ABSL_GUARDED_BY(mutex_);
  size_t num_waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  Alarm alarm_;
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_RECEIVE_GATE_H_
