// Errors as users meet them: a canonical code, a sentence that says what to do, and
// machine-readable details that the border (rpc/) turns into google.rpc.ErrorInfo, BadRequest and
// RetryInfo. The details travel as payloads of absl::Status, so every room can make them without
// knowing protobuf or gRPC.
//
// Messages name the field and the allowed range. They never carry prompts, file system paths of the
// host or stack traces.
#ifndef VALUESCOPE_BASE_ERROR_H_
#define VALUESCOPE_BASE_ERROR_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace valuescope {

// What a Status made here carries beside code and message; empty fields are absent.
struct ErrorDetails {
  std::string reason;       // UPPER_SNAKE_CASE, stable: clients branch on it
  std::string field;        // request field path, e.g. "interventions[2].layers.list.layers[0]"
  std::string description;  // what is wrong with the field and which values are allowed
  std::optional<absl::Duration> retry_after;
};

// INVALID_ARGUMENT about one field of the request: "`field`: description".
absl::Status InvalidField(absl::string_view field, absl::string_view description,
                          absl::string_view reason = "INVALID_FIELD");

// INVALID_ARGUMENT: `field` is `value`, allowed are `lowest`..`highest` (inclusive).
absl::Status OutOfRange(absl::string_view field, double value, double lowest, double highest);

// Prefixes the field path of an InvalidField status ("layers[0]" -> "interventions[1].layers[0]");
// other statuses pass unchanged.
absl::Status InField(absl::string_view prefix, const absl::Status& status);

// Replaces the beginning of the field path of an InvalidField status, where it is `from` as a whole
// name ("given_response[3]" -> "inputs[0].response[3]"); other statuses pass unchanged.
absl::Status WithFieldRenamed(const absl::Status& status, absl::string_view from,
                              absl::string_view to);

// NOT_FOUND: "`models/x` does not exist". Also the answer for another tenant's resource.
absl::Status ResourceNotFound(absl::string_view resource_name);

// FAILED_PRECONDITION, ALREADY_EXISTS, UNIMPLEMENTED, INTERNAL... with a reason.
absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view reason,
                             absl::string_view message);

// RESOURCE_EXHAUSTED: full now, try again after `retry_after`.
absl::Status RetryLater(absl::string_view reason, absl::string_view message,
                        absl::Duration retry_after);

// RESOURCE_EXHAUSTED: does not fit this server however long one waits.
absl::Status NeverFits(absl::string_view reason, absl::string_view message);

// The details a status carries; all empty for a status made elsewhere.
ErrorDetails DetailsOf(const absl::Status& status);

}  // namespace valuescope

#endif  // VALUESCOPE_BASE_ERROR_H_
