#include "valuescope/call.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "status_payloads.h"
#include "valuescope/credentials.h"
#include "valuescope/error.h"
#include "valuescope/internal/attempts.h"

namespace valuescope {
namespace {

class RealClock : public RetryClock {
 public:
  absl::Time Now() override { return absl::Now(); }
  void Wait(absl::Duration duration, const absl::Notification& cancelled) override {
    cancelled.WaitForNotificationWithTimeout(duration);
  }
  double Random() override {
    thread_local absl::InsecureBitGen generator;
    return absl::Uniform(generator, 0.0, 1.0);
  }
};

}  // namespace

std::shared_ptr<RetryClock> RealRetryClock() { return std::make_shared<RealClock>(); }

std::optional<absl::Duration> RetryDelay(const RetryPolicy& policy, const absl::Status& status,
                                         int failures, double random) {
  const ErrorDetails details = ErrorDetailsOf(status);
  const bool announced =
      status.code() == absl::StatusCode::kResourceExhausted && details.retry_after;
  if (failures >= policy.attempts || details.retry_refused ||
      (status.code() != absl::StatusCode::kUnavailable && !announced)) {
    return std::nullopt;
  }
  const absl::Duration asked = details.retry_after.value_or(absl::ZeroDuration());
  if (asked > policy.patience) return std::nullopt;
  const absl::Duration backoff = std::min(policy.first * std::exp2(failures - 1), policy.longest);
  return std::max(asked, backoff * (0.5 + 0.5 * random));
}

void Cancellation::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  for (internal::Attempts* call : calls_) call->Cancel();
}

void Cancellation::Add(internal::Attempts* call) {
  absl::MutexLock lock(&mutex_);
  calls_.insert(call);
  if (cancelled_) call->Cancel();
}

void Cancellation::Remove(internal::Attempts* call) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(call);
}

namespace internal {

Attempts::Attempts(Settings settings)
    : settings_(std::move(settings)), deadline_(settings_.clock->Now() + settings_.timeout) {
  if (settings_.cancellation) settings_.cancellation->Add(this);
}

Attempts::~Attempts() {
  if (settings_.cancellation) settings_.cancellation->Remove(this);
}

grpc::ClientContext* Attempts::Begin() {
  absl::MutexLock lock(&mutex_);
  context_ = std::make_unique<grpc::ClientContext>();
  if (deadline_ != absl::InfiniteFuture()) {
    context_->set_deadline(absl::ToChronoTime(absl::Now() + (deadline_ - settings_.clock->Now())));
  }
  AddToken();
  if (!settings_.model.empty()) context_->AddMetadata("x-valuescope-model", settings_.model);
  if (cancelled_.HasBeenNotified()) context_->TryCancel();
  return context_.get();
}

void Attempts::AddToken() {
  absl::StatusOr<std::string> token = settings_.token;
  if (!settings_.token_file.empty()) token = ReadToken(settings_.token_file);
  unsent_ = token.status();
  if (!token.ok()) {
    context_->TryCancel();  // before it is sent
  } else if (!token->empty()) {
    context_->AddMetadata("authorization", absl::StrCat("Bearer ", *token));
  }
}

absl::Status Attempts::End(const grpc::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (!unsent_.ok()) return unsent_;
  // A call that comes while the server ends is taken back without having reached it, by gRPC's
  // server as CANCELLED. What reached the server has its trailers.
  if (status.error_code() == grpc::StatusCode::CANCELLED && !cancelled_.HasBeenNotified() &&
      context_->GetServerTrailingMetadata().empty()) {
    return absl::UnavailableError("the server ended before the call reached it");
  }
  return FromGrpcStatus(status, context_->GetServerTrailingMetadata());
}

bool Attempts::Again(absl::Status* status) {
  if (status->ok() || !settings_.repeatable) return false;
  const std::optional<absl::Duration> delay =
      RetryDelay(settings_.retry, *status, ++failures_, settings_.clock->Random());
  if (!delay || settings_.clock->Now() + *delay >= deadline_) return false;
  settings_.clock->Wait(*delay, cancelled_);
  if (!cancelled_.HasBeenNotified()) return true;
  *status = absl::CancelledError("cancelled while waiting to try again");
  return false;
}

void Attempts::Cancel() {
  absl::MutexLock lock(&mutex_);
  if (!cancelled_.HasBeenNotified()) cancelled_.Notify();
  if (context_) context_->TryCancel();
}

}  // namespace internal
}  // namespace valuescope
