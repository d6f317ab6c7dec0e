// A bound of memory that many share: whoever wants some takes it first and gives it back when what
// it paid for is gone. What does not fit is refused before it is allocated, so that many small
// wishes cannot add up to more than there is.
#ifndef VALUESCOPE_BASE_MEMORY_LEDGER_H_
#define VALUESCOPE_BASE_MEMORY_LEDGER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

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

  // Gives back what is beyond `bytes` >= 0.
  void ShrinkTo(int64_t bytes) {
    if (bytes < bytes_) state_->GiveBack(std::exchange(bytes_, bytes) - bytes);
  }

  int64_t bytes() const { return bytes_; }

 private:
  const std::shared_ptr<State> state_;
  int64_t bytes_;
};

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
