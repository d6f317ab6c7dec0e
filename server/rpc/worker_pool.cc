#include "rpc/worker_pool.h"

#include <exception>
#include <utility>

namespace valuescope::rpc {

WorkerPool::~WorkerPool() {
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    threads = std::move(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

bool WorkerPool::TrySubmit(std::function<void()>& work) {
  absl::MutexLock lock(&mutex_);
  const bool needs_thread = queue_.size() >= idle_;
  if (needs_thread && !StartThread()) {
    if (threads_.empty() || queue_.size() - idle_ >= options_.max_queued) return false;
  }
  queue_.push_back(std::move(work));
  return true;
}

// Before the work is queued: an exception would tell the caller that it was not taken, and he would
// let go of what it needs.
bool WorkerPool::StartThread() {
  if (threads_.size() >= options_.max_threads) return false;
  try {
    threads_.emplace_back([this] { Loop(); });
    return true;
  } catch (const std::exception&) {  // no memory for its stack, or no more threads
    return false;
  }
}

void WorkerPool::Loop() {
  while (true) {
    std::function<void()> work;
    {
      absl::MutexLock lock(&mutex_);
      ++idle_;
      mutex_.Await(absl::Condition(this, &WorkerPool::HasWorkOrStops));
      --idle_;
      if (queue_.empty()) return;
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    work();
  }
}

}  // namespace valuescope::rpc
