#include "rpc/worker_pool.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/last_places.h"

namespace valuescope::rpc {
namespace {

int64_t Count(size_t places) { return static_cast<int64_t>(places); }

}  // namespace

WorkerPool::~WorkerPool() {
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    threads = std::move(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

bool WorkerPool::TrySubmit(std::function<void()>& work, const std::string& tenant) {
  absl::MutexLock lock(&mutex_);
  const auto own = tenants_.try_emplace(tenant).first;
  const bool needs_thread = queued_ >= idle_;
  if (!(needs_thread && StartThread(own->second)) && !HasPlace(own->second)) {
    if (own->second.accepted() == 0) tenants_.erase(own);
    return false;
  }
  own->second.queue.push_back(std::move(work));
  ++queued_;
  return true;
}

// Before the work is queued: an exception would tell the caller that it was not taken, and he would
// let go of what it needs.
bool WorkerPool::StartThread(const OfTenant& own) {
  const size_t more = MayRun(own) ? options_.max_threads / kTenantsWithFew : 0;
  if (threads_.size() >= options_.max_threads + more) return false;
  try {
    threads_.emplace_back([this] { Loop(); });
    return true;
  } catch (const std::exception&) {  // no memory for its stack, or no more threads
    return false;
  }
}

bool WorkerPool::HasPlace(const OfTenant& own) const {
  if (threads_.empty()) return false;
  const size_t accepted = queued_ + running_;
  const size_t places = std::min(threads_.size(), options_.max_threads) + options_.max_queued;
  const size_t more = (options_.max_threads + options_.max_queued) / kTenantsWithFew;
  return MayTakePlace(Count(own.accepted()), Count(places + more) - Count(accepted), Count(more));
}

bool WorkerPool::MayRun(const OfTenant& own) const {
  const size_t threads = options_.max_threads, more = threads / kTenantsWithFew;
  return stopping_ ||
         MayTakePlace(Count(own.running), Count(threads + more) - Count(running_), Count(more));
}

// Whose work is begun next; the end where none may be.
std::map<std::string, WorkerPool::OfTenant>::iterator WorkerPool::Next() {
  auto next = tenants_.end();
  for (auto own = tenants_.begin(); own != tenants_.end(); ++own) {
    if (own->second.queue.empty() || !MayRun(own->second)) continue;
    if (next == tenants_.end() || own->second.running < next->second.running) next = own;
  }
  return next;
}

void WorkerPool::Ran(const std::string& tenant) {
  --running_;
  const auto own = tenants_.find(tenant);
  --own->second.running;
  if (own->second.accepted() == 0) tenants_.erase(own);
}

void WorkerPool::Loop() {
  while (true) {
    std::function<void()> work;
    std::string tenant;
    {
      absl::MutexLock lock(&mutex_);
      ++idle_;
      mutex_.Await(absl::Condition(this, &WorkerPool::HasWorkOrStops));
      --idle_;
      const auto next = Next();
      if (next == tenants_.end()) return;
      work = std::move(next->second.queue.front());
      next->second.queue.pop_front();
      tenant = next->first;
      ++next->second.running;
      --queued_;
      ++running_;
    }
    work();
    work = nullptr;
    absl::MutexLock lock(&mutex_);
    Ran(tenant);
  }
}

}  // namespace valuescope::rpc
