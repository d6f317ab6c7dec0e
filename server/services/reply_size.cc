#include "services/reply_size.h"

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::services {

absl::Status CheckReplySize(int64_t bytes, absl::string_view what, absl::string_view remedy) {
  if (bytes <= kMostReplyBytes) return absl::OkStatus();
  return NeverFits("RESPONSE_TOO_LARGE", absl::StrCat(what, " take more than the ", kMostReplyBytes,
                                                      " bytes of one message; ", remedy));
}

}  // namespace valuescope::services
