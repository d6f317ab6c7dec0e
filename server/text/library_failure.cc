#include "text/library_failure.h"

#include "absl/strings/str_cat.h"
#include "base/error.h"

namespace valuescope::text {

absl::Status StatusOf(VsFailure failure, const OwnedString& error, absl::string_view field) {
  switch (failure) {
    case VS_OK:
      return absl::OkStatus();
    case VS_REFUSED:
      return InvalidField(field, View(error));
    case VS_RAISED:
      return InvalidField(field, View(error), "CHAT_TEMPLATE_RAISED");
    case VS_OVER_BUDGET:
      return NeverFits("CHAT_TEMPLATE_BUDGET", View(error));
    case VS_DISABLED:
      return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "CHAT_TEMPLATE_DISABLED",
                             View(error));
    case VS_BAD_ARGUMENTS:
      return InvalidField("template_arguments", View(error));
    case VS_INTERNAL:
      break;
  }
  // Without a reason the words go to the log and not to the client.
  return absl::InternalError(absl::StrCat("the text library failed: ", View(error)));
}

}  // namespace valuescope::text
