#include "rpc/worker_pool.h"

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
  const bool can_start = threads_.size() < options_.max_threads;
  if (needs_thread && !can_start && queue_.size() - idle_ >= options_.max_queued) return false;
  queue_.push_back(std::move(work));
  if (needs_thread && can_start) threads_.emplace_back([this] { Loop(); });
  return true;
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
