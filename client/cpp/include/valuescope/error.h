// What a server says about a refused call. A call's absl::Status carries every google.rpc detail of
// the answer as a payload under its type's URL ("type.googleapis.com/google.rpc.ErrorInfo", ...);
// here they are read.
#ifndef VALUESCOPE_ERROR_H_
#define VALUESCOPE_ERROR_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace valuescope {

// One field of a request and what is wrong with it.
struct FieldViolation {
  std::string field;
  std::string description;
};

// What the server said beyond code and message; empty for an error made on this side.
struct ErrorDetails {
  std::string reason;                           // UPPER_SNAKE_CASE, stable: branch on it
  std::map<std::string, std::string> metadata;  // what the reason speaks of
  std::vector<FieldViolation> violations;       // for INVALID_ARGUMENT
  std::optional<absl::Duration> retry_after;    // RetryInfo or grpc-retry-pushback-ms, the longer
  bool retry_refused = false;                   // the server asked not to be tried again
  std::string request_id;                       // quote it when reporting a fault
};
ErrorDetails ErrorDetailsOf(const absl::Status& status);

// The same for people, some lines without a newline at the end: message and reason, then each
// field, when to try again, and the request id of a fault of the server. "OK" for no error.
std::string ErrorText(const absl::Status& status);

}  // namespace valuescope

#endif  // VALUESCOPE_ERROR_H_
