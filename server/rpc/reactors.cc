#include "rpc/reactors.h"

#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "rpc/status_to_grpc.h"

namespace valuescope::rpc {

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

absl::Time GrpcPeer::deadline() const {
  const auto deadline = context_->deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

void GrpcPeer::Finish(const absl::Status& status) {
  if (const std::optional<absl::Duration> delay = RetryDelayOf(status)) {
    AddTrailingMetadata(kRetryPushback, absl::StrCat(absl::ToInt64Milliseconds(*delay)));
  }
  const auto finish = finish_;  // which outlives this peer, as the reactor's end may come at once
  finish(ToGrpcStatus(status));
}

}  // namespace valuescope::rpc
