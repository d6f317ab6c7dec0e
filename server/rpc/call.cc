#include "rpc/call.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "base/thread_cancellation.h"
#include "observability/log.h"
#include "rpc/resource_names.h"
#include "rpc/routed_model.h"

namespace valuescope::rpc {
namespace {

constexpr char kRequestId[] = "x-request-id";
constexpr char kTraceparent[] = "traceparent";
constexpr size_t kMaxMetadataValue = 128;  // bytes that enter logs and the answer's headers

// The value if it is short, printable and without spaces; else empty.
std::string CleanValue(const CallMetadata& metadata, const char* key) {
  const auto place = metadata.find(key);
  if (place == metadata.end() || place->second.size() > kMaxMetadataValue) return "";
  const std::string value(place->second);
  const bool clean = std::all_of(value.begin(), value.end(),
                                 [](unsigned char c) { return absl::ascii_isgraph(c); });
  return clean ? value : "";
}

constexpr absl::Duration kTimerSlack = absl::Milliseconds(5);

absl::Status DeadlinePassed() {
  return ErrorWithReason(absl::StatusCode::kDeadlineExceeded, "DEADLINE_EXCEEDED",
                         "the call's deadline passed");
}

}  // namespace

Call::Call(CallRuntime* runtime, const Method* method, Peer* peer)
    : runtime_(runtime), method_(method), peer_(peer) {
  context_.memory = runtime->memory();
  context_.received = absl::Now();
  context_.deadline = peer->deadline();
  const CallMetadata metadata = peer->metadata();
  context_.request_id = CleanValue(metadata, kRequestId);
  if (context_.request_id.empty()) context_.request_id = NewUuid();
  context_.traceparent = CleanValue(metadata, kTraceparent);
  const auto [first, last] = metadata.equal_range(kModelMetadata);
  for (auto sent = first; sent != last; ++sent) models_.emplace_back(sent->second);
  peer->AddInitialMetadata(kRequestId, context_.request_id);
}

Call::~Call() {
  if (entered_) runtime_->Leave(&context_);
}

absl::Status Call::Admit() {
  VS_ASSIGN_OR_RETURN(Caller caller, runtime_->authenticator().Authenticate(*peer_));
  context_.tenant = std::move(caller.tenant);
  caller_ = std::move(caller.name);
  context_.role = caller.role;
  role_ = caller.role;
  if (caller.role >= method_->least_role) return absl::OkStatus();
  return ErrorWithReason(
      absl::StatusCode::kPermissionDenied, "ROLE_TOO_LOW",
      absl::StrCat(method_->name, " needs the role ", NameOf(method_->least_role),
                   ", and the credentials of this call have the role ", NameOf(caller.role)));
}

absl::Status Call::Enter() {
  VS_RETURN_IF_ERROR(Admit());
  if (method_->runs_models) VS_RETURN_IF_ERROR(runtime_->CheckMayRunModels(context_.tenant));
  VS_RETURN_IF_ERROR(runtime_->Enter(&context_, method_->lane == Lane::kWaiting, method_->bounded));
  entered_ = true;
  return absl::OkStatus();
}

void Call::Note(const google::protobuf::Message& message) {
  if (runtime_->audit() == nullptr) return;
  absl::MutexLock lock(&resources_mutex_);
  AddResourceNames(message, resources_);
}

absl::Status Call::CheckModel(const google::protobuf::Message& request) const {
  return CheckRoutedModel(request, models_);
}

void Call::Start(std::function<absl::Status()> handler, std::function<void()> flush) {
  const absl::Status queued =
      runtime_->Submit(method_->lane, context_.tenant, [this, handler = std::move(handler), flush] {
        const absl::Status result = Run(handler);
        flush();
        peer_->Finish(Conclude(result));
      });
  if (queued.ok()) return;
  flush();
  Refuse(queued);
}

void Call::StartWaiting(std::function<std::optional<absl::Status>()> step) {
  stepper_ = Stepper::Create(runtime_, [this, step = std::move(step)] {
    WhyStopped().IgnoreError();
    const std::optional<absl::Status> result = step();
    if (!result) return false;
    stop_.reset();
    peer_->Finish(Conclude(*result));
    return true;
  });
  stop_.emplace(&context_, wake());
  const std::shared_ptr<Stepper> stepper = stepper_;  // the call may be over as soon as it starts
  if (const absl::Status started = stepper->Start(); !started.ok()) {
    stop_.reset();
    peer_->Finish(Conclude(started));
  }
}

std::function<void()> Call::wake() const {
  return [stepper = stepper_] { stepper->Wake(); };
}

absl::Status Call::Run(const std::function<absl::Status()>& handler) {
  VS_RETURN_IF_ERROR(WhyStopped());
  context_.may_wait = method_->lane == Lane::kLong;
  const ThreadCancellation as_the_call(context_.cancellation);
  return CatchExceptions(handler);
}

absl::Status Call::WhyStopped() {
  if (absl::Now() >= context_.deadline) context_.Stop(DeadlinePassed());
  return context_.Why();
}

void Call::ClientGone() {
  // gRPC's timer may end a call a moment before this clock says so.
  if (absl::Now() + kTimerSlack >= context_.deadline) {
    context_.Stop(DeadlinePassed());
  } else {
    context_.Stop(
        ErrorWithReason(absl::StatusCode::kCancelled, "CANCELLED", "the client ended the call"));
  }
}

void Call::Abort(absl::Status why) {
  context_.Stop(std::move(why));
  peer_->TryCancel();
}

absl::Status Call::Conclude(absl::Status status) {
  if (entered_) runtime_->Answered(&context_);
  // A handler that was stopped says CANCELLED; the client deserves to hear why.
  if (status.code() == absl::StatusCode::kCancelled && !context_.Why().ok()) {
    status = context_.Why();
  }
  const absl::Duration duration = absl::Now() - context_.received;
  const std::string code =
      status.ok() ? "OK" : std::string(absl::StatusCodeToString(status.code()));
  const bool fault = status.code() == absl::StatusCode::kInternal ||
                     status.code() == absl::StatusCode::kUnknown ||
                     status.code() == absl::StatusCode::kDataLoss;
  observability::Log(
      fault ? observability::LogLevel::kError : observability::LogLevel::kInfo, "rpc",
      {{"method", method_->name},
       {"code", code},
       {"reason", DetailsOf(status).reason},
       {"seconds", absl::ToDoubleSeconds(duration)},
       {"tenant", context_.tenant},
       {"caller", caller_},
       {"request_id", context_.request_id},
       {"traceparent", context_.traceparent},
       // Messages about requests may quote them; messages about faults are the server's own.
       {"error", fault ? absl::string_view(status.message()) : absl::string_view()}});
  if (runtime_->metrics() != nullptr) {
    runtime_->metrics()->RpcFinished(method_->name, code, duration);
  }
  if (runtime_->audit() != nullptr) WriteAudit(code, status);
  if (runtime_->usage() != nullptr && role_) runtime_->usage()->CountCall(context_.tenant);
  peer_->AddTrailingMetadata(kRequestId, context_.request_id);
  return status;
}

void Call::WriteAudit(const std::string& code, const absl::Status& status) {
  absl::MutexLock lock(&resources_mutex_);
  const bool refused = status.code() == absl::StatusCode::kUnauthenticated ||
                       status.code() == absl::StatusCode::kPermissionDenied;
  if (resources_.empty() && !refused) return;
  const bool written = runtime_->audit()->Write({{"tenant", context_.tenant},
                                                 {"caller", caller_},
                                                 {"role", role_ ? NameOf(*role_) : ""},
                                                 {"method", method_->name},
                                                 {"code", code},
                                                 {"reason", DetailsOf(status).reason},
                                                 {"resources", absl::StrJoin(resources_, ",")},
                                                 {"request_id", context_.request_id}});
  if (written) return;
  observability::Log(observability::LogLevel::kError, "a line of the audit log is lost",
                     {{"method", method_->name}, {"request_id", context_.request_id}});
}

}  // namespace valuescope::rpc
