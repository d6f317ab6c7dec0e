#include "jobs/retention.h"

#include <exception>
#include <string>
#include <utility>

#include "base/error.h"

namespace valuescope::jobs {

RetentionSweeper::RetentionSweeper(JobQueue* queue, RetentionOptions options)
    : queue_(queue), options_(std::move(options)), sweeping_([this] {
        Sweep();
        return options_.pause;
      }) {}

void RetentionSweeper::Sweep() {
  try {
    Remove();
  } catch (const std::exception&) {
    // Without memory now; the next look may have some.
    if (options_.on_store_error) {
      options_.on_store_error(ErrorWithReason(absl::StatusCode::kInternal, "SWEEP_THREW",
                                              "a sweep of what is due ended with an exception"));
    }
  }
}

void RetentionSweeper::Remove() {
  bool more = true;
  while (more && !sweeping_.stopping()) {
    const absl::StatusOr<store::Expired> expired =
        queue_->store().Expire(options_.kept, options_.rows_at_once);
    if (!expired.ok()) {
      if (options_.on_store_error) options_.on_store_error(expired.status());
      return;
    }
    more = expired->more;
    for (const std::string& id : expired->jobs) queue_->Announce(id);
    const bool any = !expired->jobs.empty() || expired->request_ids > 0 || expired->partials > 0 ||
                     expired->usage > 0;
    if (any && options_.on_expired) options_.on_expired(*expired);
  }
}

}  // namespace valuescope::jobs
