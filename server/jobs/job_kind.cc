#include "jobs/job_kind.h"

#include "base/error.h"

namespace valuescope::jobs {
namespace {

constexpr char kNotReady[] = "NOT_READY";

}  // namespace

absl::Status NotReady(absl::string_view what) {
  return ErrorWithReason(absl::StatusCode::kUnavailable, kNotReady, what);
}

bool IsNotReady(const absl::Status& status) { return DetailsOf(status).reason == kNotReady; }

}  // namespace valuescope::jobs
