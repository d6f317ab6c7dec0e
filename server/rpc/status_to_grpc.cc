#include "rpc/status_to_grpc.h"

#include <string>

#include "base/error.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace valuescope::rpc {
namespace {

constexpr char kInternalMessage[] = "the server failed; quote x-request-id when reporting it";

bool WrittenForTheLog(const absl::Status& status, const ErrorDetails& details) {
  return details.reason.empty() && (status.code() == absl::StatusCode::kInternal ||
                                    status.code() == absl::StatusCode::kUnknown);
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return proto;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const ErrorDetails details = DetailsOf(status);
  const std::string message =
      WrittenForTheLog(status, details) ? kInternalMessage : std::string(status.message());

  google::rpc::Status proto;
  proto.set_code(static_cast<int>(status.code()));
  proto.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_domain(kErrorDomain);
  info.set_reason(details.reason.empty() ? absl::StatusCodeToString(status.code())
                                         : details.reason);
  if (!details.field.empty()) (*info.mutable_metadata())["field"] = details.field;
  proto.add_details()->PackFrom(info);
  if (!details.field.empty()) {
    google::rpc::BadRequest bad_request;
    auto& violation = *bad_request.add_field_violations();
    violation.set_field(details.field);
    violation.set_description(details.description);
    proto.add_details()->PackFrom(bad_request);
  }
  if (details.retry_after) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = ToProto(*details.retry_after);
    proto.add_details()->PackFrom(retry);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      proto.SerializeAsString());
}

}  // namespace valuescope::rpc
