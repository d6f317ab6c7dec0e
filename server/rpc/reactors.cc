#include "rpc/reactors.h"

#include <grpc/grpc_security_constants.h>
#include <grpcpp/security/auth_context.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "rpc/status_to_grpc.h"

namespace valuescope::rpc {

namespace {

constexpr size_t kMostKept = 64 << 10;

}  // namespace

CallMetadata GrpcPeer::metadata() const {
  const auto view = [](const grpc::string_ref& bytes) {
    return absl::string_view(bytes.data(), bytes.size());
  };
  CallMetadata metadata;
  for (const auto& [key, value] : context_->client_metadata()) {
    metadata.emplace(view(key), view(value));
  }
  return metadata;
}

std::optional<std::string> GrpcPeer::certificate_uri() const {
  const std::shared_ptr<const grpc::AuthContext> shown = context_->auth_context();
  if (shown == nullptr || !shown->IsPeerAuthenticated()) return std::nullopt;
  const std::vector<grpc::string_ref> uris = shown->FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME);
  return uris.size() == 1 ? std::string(uris[0].data(), uris[0].size()) : std::string();
}

absl::Time GrpcPeer::deadline() const {
  const auto deadline = context_->deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

void GrpcPeer::Finish(const absl::Status& status) {
  if (const std::optional<absl::Duration> delay = DetailsOf(status).retry_after) {
    AddTrailingMetadata(kRetryPushback, absl::StrCat(absl::ToInt64Milliseconds(*delay)));
  }
  const auto finish = finish_;  // which outlives this peer, as the reactor's end may come at once
  finish(ToGrpcStatus(status));
}

absl::Status Reactor::SetReply(const google::protobuf::Message& message) {
  const CallContext& context = call_.context();
  const auto bytes = static_cast<int64_t>(message.ByteSizeLong());
  VS_RETURN_IF_ERROR(context.Hold(bytes));
  call_.Note(message);
  reply_ = BytesOf(message);
  context.GiveBack(context.held() - bytes);
  return absl::OkStatus();
}

void Reactor::End(grpc::Status status) {
  if (status.ok() && reply_) {
    patience_.emplace(call_.clock(), [this] {
      peer_.TryCancel();
      return absl::InfiniteFuture();
    });
    patience_->RingAt(absl::Now() + call_.stall_timeout());
    StartWriteAndFinish(&*reply_, {}, std::move(status));
  } else {
    Finish(std::move(status));
  }
}

void OneRequestReactor::Open() {
  if (const absl::Status entered = call_.Enter(); !entered.ok()) return call_.Refuse(entered);
  gate_->Enter(sender_, this);
}

void OneRequestReactor::OnCancel() {
  call_.ClientGone();
  // What has begun hears it from its read.
  if (gate_->LeaveQueue(this)) call_.Refuse(call_.context().Why());
}

void OneRequestReactor::OnReadDone(bool ok) {
  // What gRPC received with counts against all connections until it is let go of.
  if (ok && bytes_.Length() > kMostKept) bytes_ = CopyOf(bytes_);
  if (!gate_->Leave(this)) return;
  const CallContext& context = call_.context();
  absl::Status here = context.Why();
  if (here.ok() && !ok) {
    here = ErrorWithReason(absl::StatusCode::kInvalidArgument, "MESSAGE_MISSING",
                           "the call ended before there was a message, or with a longer one than "
                           "this server takes");
  }
  if (here.ok()) here = context.Hold(static_cast<int64_t>(bytes_.Length()));
  if (!here.ok()) return call_.Refuse(here);
  Received();
}

absl::Status OneRequestReactor::TakeRequest(google::protobuf::Message& request) {
  const CallContext& context = call_.context();
  const auto length = static_cast<int64_t>(bytes_.Length());
  VS_ASSIGN_OR_RETURN(const int64_t size, SizeOnceParsed(bytes_, *request.GetDescriptor()));
  VS_RETURN_IF_ERROR(context.Hold(size));
  VS_RETURN_IF_ERROR(ParseMessage(bytes_, request));
  VS_RETURN_IF_ERROR(call_.CheckModel(request));
  call_.Note(request);
  context.GiveBack(length);
  return absl::OkStatus();
}

}  // namespace valuescope::rpc
