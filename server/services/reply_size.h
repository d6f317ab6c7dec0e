// What the one message of a unary reply may have. A client refuses a longer one, with an error that
// says nothing about what to do; the server knows first and says what to ask for instead.
#ifndef VALUESCOPE_SERVICES_REPLY_SIZE_H_
#define VALUESCOPE_SERVICES_REPLY_SIZE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace valuescope::services {

// What gRPC's clients take by default.
inline constexpr int64_t kMostReplyBytes = int64_t{4} << 20;

// RESOURCE_EXHAUSTED, reason RESPONSE_TOO_LARGE, where `bytes` are more: "`what` take more than the
// 4194304 bytes of one message; `remedy`".
absl::Status CheckReplySize(int64_t bytes, absl::string_view what, absl::string_view remedy);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_REPLY_SIZE_H_
