#include "base/error.h"

#include <charconv>
#include <cmath>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace valuescope {
namespace {

constexpr char kReason[] = "valuescope/reason";
constexpr char kField[] = "valuescope/field";
constexpr char kDescription[] = "valuescope/description";
constexpr char kRetryAfter[] = "valuescope/retry_after";

absl::Status WithPayload(absl::Status status, const char* key, absl::string_view value) {
  status.SetPayload(key, absl::Cord(value));
  return status;
}

std::string PayloadOr(const absl::Status& status, const char* key) {
  const auto payload = status.GetPayload(key);
  return payload ? std::string(*payload) : std::string();
}

// Whole numbers in full: people compare them digit by digit. Others as briefly as somebody wrote
// them, if they came as float32.
std::string Spelled(double value) {
  const bool whole = std::abs(value) < 9e15 && value == std::trunc(value);
  if (whole) return absl::StrCat(static_cast<int64_t>(value));
  const auto single = static_cast<float>(value);
  if (static_cast<double>(single) != value) return absl::StrFormat("%.10g", value);
  char digits[32];
  const auto end = std::to_chars(std::begin(digits), std::end(digits), single).ptr;
  return std::string(std::begin(digits), end);
}

}  // namespace

absl::Status InvalidField(absl::string_view field, absl::string_view description,
                          absl::string_view reason) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat("`", field, "`: ", description));
  status.SetPayload(kReason, absl::Cord(reason));
  status.SetPayload(kField, absl::Cord(field));
  return WithPayload(std::move(status), kDescription, description);
}

absl::Status OutOfRange(absl::string_view field, double value, double lowest, double highest) {
  return InvalidField(field,
                      absl::StrCat("is ", Spelled(value), ", allowed range is ", Spelled(lowest),
                                   " to ", Spelled(highest)),
                      "OUT_OF_RANGE");
}

absl::Status InField(absl::string_view prefix, const absl::Status& status) {
  const ErrorDetails details = DetailsOf(status);
  if (details.field.empty()) return status;
  const bool index = details.field.front() == '[';
  return InvalidField(absl::StrCat(prefix, index ? "" : ".", details.field), details.description,
                      details.reason);
}

absl::Status ResourceNotFound(absl::string_view resource_name) {
  return ErrorWithReason(absl::StatusCode::kNotFound, "RESOURCE_NOT_FOUND",
                         absl::StrCat("`", resource_name, "` does not exist"));
}

absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view reason,
                             absl::string_view message) {
  return WithPayload(absl::Status(code, message), kReason, reason);
}

absl::Status RetryLater(absl::string_view reason, absl::string_view message,
                        absl::Duration retry_after) {
  return WithPayload(ErrorWithReason(absl::StatusCode::kResourceExhausted, reason, message),
                     kRetryAfter, absl::StrCat(absl::ToInt64Milliseconds(retry_after)));
}

absl::Status NeverFits(absl::string_view reason, absl::string_view message) {
  return ErrorWithReason(absl::StatusCode::kResourceExhausted, reason, message);
}

absl::Status WithFieldRenamed(const absl::Status& status, absl::string_view from,
                              absl::string_view to) {
  const ErrorDetails details = DetailsOf(status);
  absl::string_view rest = details.field;
  if (!absl::ConsumePrefix(&rest, from) || (!rest.empty() && rest[0] != '.' && rest[0] != '[')) {
    return status;
  }
  return InvalidField(absl::StrCat(to, rest), details.description, details.reason);
}

ErrorDetails DetailsOf(const absl::Status& status) {
  ErrorDetails details{.reason = PayloadOr(status, kReason),
                       .field = PayloadOr(status, kField),
                       .description = PayloadOr(status, kDescription),
                       .retry_after = std::nullopt};
  int64_t milliseconds = 0;
  if (absl::SimpleAtoi(PayloadOr(status, kRetryAfter), &milliseconds)) {
    details.retry_after = absl::Milliseconds(milliseconds);
  }
  return details;
}

}  // namespace valuescope
