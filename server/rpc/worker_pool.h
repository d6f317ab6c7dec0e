// Threads that run handlers, because a reaction of gRPC's callback API must never block. The queue
// is bounded: work that would wait behind too much other work is refused at once, so that a client
// hears "retry later" instead of a deadline.
//
// Handlers may hold a thread for as long as others' work takes, so that one tenant could have all
// of them. Beside what the options say there is therefore an eighth more of threads and of places
// in the queue for tenants with few: a tenant gets one of these where it holds less than an eighth
// of those that are left.
#ifndef VALUESCOPE_RPC_WORKER_POOL_H_
#define VALUESCOPE_RPC_WORKER_POOL_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <string>
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
  // and none was started before. A tenant's work is begun in order; of tenants whose work waits the
  // one comes first of which least runs.
  bool TrySubmit(std::function<void()>& work, const std::string& tenant = "");

 private:
  struct OfTenant {
    std::deque<std::function<void()>> queue;
    size_t running = 0;

    size_t accepted() const { return queue.size() + running; }
  };

  bool StartThread(const OfTenant& own) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasPlace(const OfTenant& own) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool MayRun(const OfTenant& own) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::map<std::string, OfTenant>::iterator Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Ran(const std::string& tenant) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Loop();
  bool HasWorkOrStops() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || Next() != tenants_.end();
  }

  const WorkerPoolOptions options_;
  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  size_t idle_ ABSL_GUARDED_BY(mutex_) = 0;                          // threads that wait for work
  size_t queued_ ABSL_GUARDED_BY(mutex_) = 0;                        // of all tenants
  size_t running_ ABSL_GUARDED_BY(mutex_) = 0;                       // of all tenants
  std::map<std::string, OfTenant> tenants_ ABSL_GUARDED_BY(mutex_);  // that have some of either
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope::rpc

#endif  // VALUESCOPE_RPC_WORKER_POOL_H_
