#include "valuescope/error.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "status_payloads.h"

namespace valuescope {
namespace {

constexpr char kTypes[] = "type.googleapis.com/";
constexpr char kRequestId[] = "valuescope/x-request-id";
constexpr char kPushback[] = "valuescope/grpc-retry-pushback-ms";

template <typename Detail>
std::optional<Detail> DetailOf(const absl::Status& status) {
  const auto payload = status.GetPayload(absl::StrCat(kTypes, Detail::descriptor()->full_name()));
  Detail detail;
  if (!payload || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

}  // namespace

absl::Status FromGrpcStatus(
    const grpc::Status& status,
    const std::multimap<grpc::string_ref, grpc::string_ref>& trailing_metadata) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (google::rpc::Status rich; rich.ParseFromString(status.error_details())) {
    for (const auto& detail : rich.details())
      result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  for (const auto& [key, payload] :
       {std::pair("x-request-id", kRequestId), {"grpc-retry-pushback-ms", kPushback}}) {
    if (const auto found = trailing_metadata.find(key); found != trailing_metadata.end()) {
      result.SetPayload(payload,
                        absl::Cord(absl::string_view(found->second.data(), found->second.size())));
    }
  }
  return result;
}

ErrorDetails ErrorDetailsOf(const absl::Status& status) {
  ErrorDetails details;
  if (const auto info = DetailOf<google::rpc::ErrorInfo>(status)) {
    details.reason = info->reason();
    details.metadata.insert(info->metadata().begin(), info->metadata().end());
  }
  if (const auto bad_request = DetailOf<google::rpc::BadRequest>(status)) {
    for (const auto& violation : bad_request->field_violations()) {
      details.violations.push_back({violation.field(), violation.description()});
    }
  }
  if (const auto retry = DetailOf<google::rpc::RetryInfo>(status)) {
    details.retry_after = absl::Seconds(retry->retry_delay().seconds()) +
                          absl::Nanoseconds(retry->retry_delay().nanos());
  }
  if (const auto pushback = status.GetPayload(kPushback)) {
    // As gRPC reads it: anything but a number of milliseconds means not to try again.
    int64_t milliseconds = 0;
    if (absl::SimpleAtoi(std::string(*pushback), &milliseconds) && milliseconds >= 0) {
      details.retry_after = std::max(details.retry_after.value_or(absl::ZeroDuration()),
                                     absl::Milliseconds(milliseconds));
    } else {
      details.retry_refused = true;
    }
  }
  if (const auto id = status.GetPayload(kRequestId)) details.request_id = std::string(*id);
  return details;
}

std::string ErrorText(const absl::Status& status) {
  if (status.ok()) return "OK";
  const ErrorDetails details = ErrorDetailsOf(status);
  std::string text(status.message());
  if (text.empty()) text = absl::StatusCodeToString(status.code());
  if (!details.reason.empty()) absl::StrAppend(&text, " [", details.reason, "]");
  for (const FieldViolation& violation : details.violations) {
    if (absl::StrContains(status.message(), violation.description)) continue;  // said already
    absl::StrAppend(&text, "\n  ", violation.field, ": ", violation.description);
  }
  if (details.retry_after && !details.retry_refused) {
    absl::StrAppend(&text, "\n  try again in ", absl::FormatDuration(*details.retry_after));
  }
  if (status.code() == absl::StatusCode::kInternal && !details.request_id.empty()) {
    absl::StrAppend(&text, "\n  request id ", details.request_id);
  }
  return text;
}

}  // namespace valuescope
