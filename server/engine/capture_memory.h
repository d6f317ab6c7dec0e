// Host memory that captures may hold, over all requests of an engine. A request takes what its taps
// may need before it is admitted and gives it back when the last copy of its result is gone, so a
// client that does not read its results cannot make the server run out of memory: it makes others
// wait.
#ifndef VALUESCOPE_ENGINE_CAPTURE_MEMORY_H_
#define VALUESCOPE_ENGINE_CAPTURE_MEMORY_H_

#include <atomic>
#include <cstdint>
#include <memory>

namespace valuescope::engine {

// Thread-safe.
class CaptureMemory {
 public:
  // Gives its bytes back when destroyed; may outlive the engine.
  class Lease;

  explicit CaptureMemory(int64_t capacity) : state_(std::make_shared<State>(capacity)) {}

  // Null where fewer than `bytes` are free. 0 bytes are always free.
  std::shared_ptr<const Lease> Take(int64_t bytes);

  int64_t capacity() const { return state_->capacity; }
  int64_t used() const { return state_->used.load(std::memory_order_relaxed); }

 private:
  struct State {
    explicit State(int64_t capacity_bytes) : capacity(capacity_bytes) {}
    const int64_t capacity;
    std::atomic<int64_t> used{0};
  };

  std::shared_ptr<State> state_;
};

class CaptureMemory::Lease {
 public:
  Lease(std::shared_ptr<State> state, int64_t bytes) : state_(std::move(state)), bytes_(bytes) {}
  ~Lease() { state_->used.fetch_sub(bytes_, std::memory_order_relaxed); }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

 private:
  const std::shared_ptr<State> state_;
  const int64_t bytes_;
};

inline std::shared_ptr<const CaptureMemory::Lease> CaptureMemory::Take(int64_t bytes) {
  int64_t used = state_->used.load(std::memory_order_relaxed);
  do {
    if (bytes > state_->capacity - used && bytes > 0) return nullptr;
  } while (!state_->used.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
  return std::make_shared<const Lease>(state_, bytes);
}

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_CAPTURE_MEMORY_H_
