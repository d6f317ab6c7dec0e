#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/engine.h"

namespace valuescope::engine {
namespace {

// How often the flag of the caller is looked at; a cancelled list stops within this and a step.
constexpr absl::Duration kCancellationPoll = absl::Milliseconds(50);

// By index of the request.
using Finished = std::map<size_t, absl::StatusOr<Completion>>;

// What the waiting thread and the engine's telling one share.
class Collection {
 public:
  void Add(size_t index, absl::StatusOr<Completion> completion) {
    absl::MutexLock lock(&mutex_);
    finished_.emplace(index, std::move(completion));
  }

  // What finished since the last call; where `wait`, after waiting for something for a while.
  Finished Await(bool wait) {
    absl::MutexLock lock(&mutex_);
    const auto any = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !finished_.empty(); };
    if (wait) mutex_.AwaitWithTimeout(absl::Condition(&any), kCancellationPoll);
    return std::exchange(finished_, {});
  }

 private:
  absl::Mutex mutex_;
  Finished finished_ ABSL_GUARDED_BY(mutex_);
};

class Collector : public Observer {
 public:
  Collector(std::shared_ptr<Collection> collection, size_t index)
      : collection_(std::move(collection)), index_(index) {}
  void OnDelta(const Delta&) override {}
  void OnFinish(absl::StatusOr<Completion> completion) override {
    collection_->Add(index_, std::move(completion));
  }

 private:
  std::shared_ptr<Collection> collection_;
  size_t index_;
};

}  // namespace

absl::Status RunEach(Engine& engine, std::vector<Request> requests,
                     const Cancellation& cancellation, const TakeCompletion& take,
                     int max_in_flight) {
  for (size_t i = 0; i < requests.size() && !cancellation.cancelled(); ++i) {
    VS_RETURN_IF_ERROR(InField(absl::StrCat("[", i, "]"), engine.Check(requests[i])));
  }
  auto collection = std::make_shared<Collection>();
  std::map<size_t, std::unique_ptr<Running>> running;
  absl::Status failure;
  size_t next = 0;
  const uint64_t client = NewClient();
  for (Request& request : requests) request.client = client;
  const auto fail = [&](absl::Status status) {
    if (!failure.ok()) return;
    failure = std::move(status);
    for (auto& [index, handle] : running) handle->Cancel();
  };
  while ((failure.ok() && next < requests.size()) || !running.empty()) {
    if (cancellation.cancelled()) {
      fail(ErrorWithReason(absl::StatusCode::kCancelled, "CANCELLED", "the work was cancelled"));
    }
    while (failure.ok() && next < requests.size() &&
           static_cast<int>(running.size()) < max_in_flight) {
      // The queue may be full of others' requests, so the request has to survive a refusal.
      auto handle = engine.Submit(requests[next], std::make_shared<Collector>(collection, next));
      if (!handle.ok()) {
        const bool later = DetailsOf(handle.status()).retry_after.has_value();
        if (later && running.empty()) absl::SleepFor(kCancellationPoll);
        if (!later) fail(InField(absl::StrCat("[", next, "]"), handle.status()));
        break;
      }
      requests[next] = Request();
      running.emplace(next++, *std::move(handle));
    }
    for (auto& [index, completion] : collection->Await(!running.empty())) {
      running.erase(index);
      if (!failure.ok()) continue;
      const absl::Status taken =
          completion.ok() ? take(index, *std::move(completion)) : completion.status();
      if (!taken.ok()) fail(InField(absl::StrCat("[", index, "]"), taken));
    }
  }
  return failure;
}

absl::StatusOr<std::vector<Completion>> RunAll(Engine& engine, std::vector<Request> requests,
                                               const Cancellation& cancellation,
                                               int max_in_flight) {
  std::vector<Completion> results(requests.size());
  const auto keep = [&](size_t index, Completion completion) {
    results[index] = std::move(completion);
    // What a list keeps is its caller's to bound. Two lists that held leases while they wait for
    // more could wait for each other for ever.
    results[index].memory.reset();
    return absl::OkStatus();
  };
  VS_RETURN_IF_ERROR(RunEach(engine, std::move(requests), cancellation, keep, max_in_flight));
  return results;
}

}  // namespace valuescope::engine
