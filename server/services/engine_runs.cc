#include "services/engine_runs.h"

#include <deque>
#include <iterator>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::services {
namespace {

// How often a call that waits for room asks for it.
constexpr absl::Duration kRoomPoll = absl::Milliseconds(50);

template <typename T>
void Append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

}  // namespace

// Outlives the EngineRuns until the engine has let go of every observer.
class EngineRuns::Shared {
 public:
  explicit Shared(EngineRunsOptions options) : options_(options) {}

  void Started(std::unique_ptr<engine::Running> running) {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) running->Cancel();
    running_.push_back(std::move(running));
  }

  void CancelAll() {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    for (const auto& running : running_) running->Cancel();
  }

  void OnDelta(int index, const engine::Delta& delta) {
    if (!options_.with_deltas) return;
    absl::MutexLock lock(&mutex_);
    for (auto event = events_.rbegin(); event != events_.rend(); ++event) {
      if (event->index != index) continue;
      engine::Delta& waiting = std::get<engine::Delta>(event->what);
      waiting.text += delta.text;
      Append(waiting.token_ids, delta.token_ids);
      Append(waiting.logprobs, delta.logprobs);
      return;
    }
    events_.push_back({.index = index, .what = delta});
  }

  void OnFinish(int index, absl::StatusOr<engine::Completion> completion) {
    absl::MutexLock lock(&mutex_);
    if (cancelled_) completion = absl::CancelledError();  // for nobody: its captures go at once
    if (completion.ok()) {
      events_.push_back({.index = index, .what = *std::move(completion)});
    } else if (failure_.ok()) {
      failure_ = std::move(completion).status();
    }
  }

  absl::StatusOr<EngineEvent> Next() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Shared::HasEvent));
    if (!failure_.ok()) return failure_;
    EngineEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  // True once the call is stopped; false where it is not within `patience`.
  bool AwaitStop(absl::Duration patience) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&cancelled_), patience);
  }

  observability::Metrics* metrics() const { return options_.metrics; }

 private:
  bool HasEvent() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !failure_.ok() || !events_.empty();
  }

  const EngineRunsOptions options_;
  absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  std::deque<EngineEvent> events_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<engine::Running>> running_ ABSL_GUARDED_BY(mutex_);
};

class EngineRuns::RequestObserver : public engine::Observer {
 public:
  RequestObserver(std::shared_ptr<Shared> shared, int index, absl::Time received)
      : shared_(std::move(shared)), index_(index), received_(received) {}

  void OnDelta(const engine::Delta& delta) override {
    if (shared_->metrics() != nullptr && !delta.token_ids.empty()) Measure(delta);
    shared_->OnDelta(index_, delta);
  }

  void OnFinish(absl::StatusOr<engine::Completion> completion) override {
    shared_->OnFinish(index_, std::move(completion));
  }

 private:
  void Measure(const engine::Delta& delta) {
    const absl::Time now = absl::Now();
    if (last_token_ == absl::InfinitePast()) {
      shared_->metrics()->FirstToken(now - received_);
    } else {
      const auto tokens = static_cast<double>(delta.token_ids.size());
      for (size_t i = 0; i < delta.token_ids.size(); ++i) {
        shared_->metrics()->NextToken((now - last_token_) / tokens);
      }
    }
    last_token_ = now;
  }

  const std::shared_ptr<Shared> shared_;
  const int index_;
  const absl::Time received_;
  absl::Time last_token_ = absl::InfinitePast();  // touched where the engine tells
};

EngineRuns::EngineRuns(const rpc::CallContext* context, engine::Engine* engine,
                       EngineRunsOptions options)
    : context_(context), engine_(engine), shared_(std::make_shared<Shared>(options)) {
  stop_.emplace(context, [shared = shared_.get()] { shared->CancelAll(); });
}

EngineRuns::~EngineRuns() {
  stop_.reset();
  shared_->CancelAll();
}

absl::Status EngineRuns::Submit(int index, engine::Request request) {
  request.tenant = context_->tenant;
  request.client = client_;
  request.deadline = context_->deadline;
  auto observer = std::make_shared<RequestObserver>(shared_, index, context_->received);
  auto running = engine_->Submit(std::move(request), std::move(observer));
  if (!running.ok()) return running.status();
  shared_->Started(*std::move(running));
  return absl::OkStatus();
}

absl::Status EngineRuns::SubmitWhileRoom(int end, int done,
                                         const std::function<engine::Request(int)>& request_of,
                                         int& submitted) {
  for (; submitted < end; ++submitted) {
    absl::Status status = Submit(submitted, request_of(submitted));
    if (DetailsOf(status).retry_after) {
      if (submitted > done) break;
      if (done > 0) status = SubmitPatiently(submitted, request_of);
    }
    VS_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status EngineRuns::SubmitPatiently(int index,
                                         const std::function<engine::Request(int)>& request_of) {
  while (true) {
    if (shared_->AwaitStop(kRoomPoll) || context_->cancellation.cancelled()) {
      VS_RETURN_IF_ERROR(context_->Why());
      return CheckGoesOn(context_->cancellation);
    }
    const absl::Status status = Submit(index, request_of(index));
    if (!DetailsOf(status).retry_after) return status;
  }
}

absl::StatusOr<EngineEvent> EngineRuns::Next() {
  auto event = shared_->Next();
  if (!event.ok() && !context_->Why().ok()) return context_->Why();
  return event;
}

}  // namespace valuescope::services
