// A bound of memory that many share: whoever wants some takes it first and gives it back when what
// it paid for is gone. What does not fit is refused before it is allocated, so that many small
// wishes cannot add up to more than there is.
#ifndef VALUESCOPE_BASE_MEMORY_LEDGER_H_
#define VALUESCOPE_BASE_MEMORY_LEDGER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace valuescope {

// Thread-safe.
class MemoryLedger {
 public:
  // Gives its bytes back when destroyed; may outlive the ledger.
  class Lease;

  explicit MemoryLedger(int64_t capacity) : state_(std::make_shared<State>(capacity)) {}

  // Null where fewer than `bytes` >= 0 are free. 0 bytes are always free.
  std::shared_ptr<Lease> Take(int64_t bytes);

  int64_t capacity() const { return state_->capacity; }
  int64_t used() const { return state_->used.load(std::memory_order_relaxed); }

 private:
  struct State {
    explicit State(int64_t capacity_bytes) : capacity(capacity_bytes) {}
    bool Take(int64_t bytes);
    void GiveBack(int64_t bytes) { used.fetch_sub(bytes, std::memory_order_relaxed); }

    const int64_t capacity;
    std::atomic<int64_t> used{0};
    std::mutex waiting;  // of the one who waits for more
  };

  std::shared_ptr<State> state_;
};

// One thread changes it at a time.
class MemoryLedger::Lease {
 public:
  Lease(std::shared_ptr<State> state, int64_t bytes) : state_(std::move(state)), bytes_(bytes) {}
  ~Lease() { state_->GiveBack(bytes_); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  // Takes `bytes` >= 0 more; false, and nothing is taken, where fewer are free.
  bool Grow(int64_t bytes) {
    if (!state_->Take(bytes)) return false;
    bytes_ += bytes;
    return true;
  }

  // The same, but waits for it until `stopped` or `until`, unless somebody else does so already:
  // of many whose wishes are too much together, who each hold something of it, one gets what it
  // needs, and the others are refused and give back what they have.
  bool GrowInTurn(int64_t bytes, absl::Time until, const std::function<bool()>& stopped);

  // Gives back what is beyond `bytes` >= 0.
  void ShrinkTo(int64_t bytes) {
    if (bytes < bytes_) state_->GiveBack(std::exchange(bytes_, bytes) - bytes);
  }

  int64_t bytes() const { return bytes_; }

 private:
  const std::shared_ptr<State> state_;
  int64_t bytes_;
};

inline bool MemoryLedger::Lease::GrowInTurn(int64_t bytes, absl::Time until,
                                            const std::function<bool()>& stopped) {
  if (Grow(bytes)) return true;
  const std::unique_lock<std::mutex> turn(state_->waiting, std::try_to_lock);
  if (!turn.owns_lock()) return false;
  // One thread looks at one number; to be told, everybody who gives back would have to tell.
  while (!Grow(bytes)) {
    if (stopped() || absl::Now() >= until) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

inline bool MemoryLedger::State::Take(int64_t bytes) {
  int64_t before = used.load(std::memory_order_relaxed);
  do {
    if (bytes > capacity - before && bytes > 0) return false;
  } while (!used.compare_exchange_weak(before, before + bytes, std::memory_order_relaxed));
  return true;
}

inline std::shared_ptr<MemoryLedger::Lease> MemoryLedger::Take(int64_t bytes) {
  if (!state_->Take(bytes)) return nullptr;
  return std::make_shared<Lease>(state_, bytes);
}

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_MEMORY_LEDGER_H_
