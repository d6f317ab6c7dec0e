// Threads that run handlers, because a reaction of gRPC's callback API must never block. The queue
// is bounded: work that would wait behind too much other work is refused at once, so that a client
// hears "retry later" instead of a deadline.
#ifndef VALUESCOPE_RPC_WORKER_POOL_H_
#define VALUESCOPE_RPC_WORKER_POOL_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace valuescope::rpc {

struct WorkerPoolOptions {
  size_t max_threads = 4;   // started one by one as work needs them
  size_t max_queued = 256;  // work accepted beyond what runs
};

// Thread-safe.
class WorkerPool {
 public:
  explicit WorkerPool(WorkerPoolOptions options) : options_(options) {}
  // Runs what was accepted, then ends the threads.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  // False, without taking `work`, when the queue is full, or where the machine has no thread for it
  // and none was started before.
  bool TrySubmit(std::function<void()>& work);

 private:
  bool StartThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Loop();
  bool HasWorkOrStops() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  }

  const WorkerPoolOptions options_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;  // threads that wait for work
  std::deque<std::function<void()>> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_WORKER_POOL_H_
