#include <map>

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

// What the waiting thread and the engine's telling one share.
struct Collection {
  absl::Mutex mutex;
  std::map<size_t, absl::StatusOr<Completion>> finished ABSL_GUARDED_BY(mutex);
};

class Collector : public Observer {
 public:
  Collector(std::shared_ptr<Collection> collection, size_t index)
      : collection_(std::move(collection)), index_(index) {}
  void OnDelta(const Delta&) override {}
  void OnFinish(absl::StatusOr<Completion> completion) override {
    absl::MutexLock lock(&collection_->mutex);
    collection_->finished.emplace(index_, std::move(completion));
  }

 private:
  std::shared_ptr<Collection> collection_;
  size_t index_;
};

}  // namespace

absl::StatusOr<std::vector<Completion>> RunAll(Engine& engine, std::vector<Request> requests,
                                               const Cancellation& cancellation,
                                               int max_in_flight) {
  for (size_t i = 0; i < requests.size() && !cancellation.cancelled(); ++i) {
    VS_RETURN_IF_ERROR(InField(absl::StrCat("[", i, "]"), engine.Check(requests[i])));
  }
  auto collection = std::make_shared<Collection>();
  std::vector<Completion> results(requests.size());
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
    absl::MutexLock lock(&collection->mutex);
    const auto any = [&collection]() { return !collection->finished.empty(); };
    if (!running.empty())
      collection->mutex.AwaitWithTimeout(absl::Condition(&any), kCancellationPoll);
    for (auto& [index, completion] : collection->finished) {
      running.erase(index);
      if (completion.ok()) {
        results[index] = *std::move(completion);
        // What a list keeps is its caller's to bound. Two lists that held leases while they wait
        // for more could wait for each other for ever.
        results[index].memory.reset();
      } else {
        fail(InField(absl::StrCat("[", index, "]"), completion.status()));
      }
    }
    collection->finished.clear();
  }
  if (!failure.ok()) return failure;
  return results;
}

}  // namespace valuescope::engine
