#include "jobs/blob_sweep.h"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/failpoint.h"
#include "base/thread_cancellation.h"

namespace valuescope::jobs {

BlobSweep::BlobSweep(store::Store* store, store::BlobStore* blobs, BlobSweepOptions options)
    : store_(store),
      blobs_(blobs),
      options_(std::move(options)),
      sweeping_([this] { return Sweep(); }) {}

absl::Duration BlobSweep::Sweep() {
  const ThreadCancellation as_the_sweep(cancellation_);
  const Clock& clock = Clock::Steady();
  if (clock.Now() >= next_removal_) {
    Guarded(&BlobSweep::RemoveOrphans);
    next_removal_ = clock.Now() + options_.sweep;
  }
  if (clock.Now() >= next_scan_) {
    Guarded(&BlobSweep::Scan);
    next_scan_ = clock.Now() + options_.scan;
  }
  return std::min(next_removal_, next_scan_) - clock.Now();
}

// Where memory ran out, the server goes on.
void BlobSweep::Guarded(void (BlobSweep::*step)()) {
  try {
    (this->*step)();
  } catch (const std::exception&) {
    Report(ErrorWithReason(absl::StatusCode::kInternal, "SWEEP_THREW",
                           "a look for blobs that nobody names ended with an exception"));
  }
}

void BlobSweep::Scan() {
  if (scanned_.empty()) Report(blobs_->ClearUnfinished());
  const auto digests = blobs_->List(scanned_, options_.blobs_a_scan, options_.grace);
  if (!digests.ok()) return Report(digests.status());
  scanned_ = digests->empty() ? "" : digests->back();
  if (!digests->empty()) Report(store_->MarkOrphanedBlobs(*digests));
  VS_FAILPOINT("scanned");
}

void BlobSweep::RemoveOrphans() {
  const absl::StatusOr<std::vector<store::OrphanedBlob>> orphans =
      store_->TakeOrphanedBlobs(options_.grace);
  if (!orphans.ok()) return Report(orphans.status());
  if (!orphans->empty()) VS_FAILPOINT("orphans_taken");
  // What is not removed now is found by a later walk.
  for (const store::OrphanedBlob& orphan : *orphans) {
    if (sweeping_.stopping()) return;
    const absl::Status removed =
        blobs_->Remove(orphan.digest, orphan.was_partial ? absl::ZeroDuration() : options_.grace);
    VS_FAILPOINT("orphan_removed");
    Report(removed);
    if (removed.ok() && options_.on_removed) options_.on_removed();
  }
}

void BlobSweep::Report(const absl::Status& status) {
  if (cancellation_.cancelled()) return;
  if (!status.ok() && options_.on_error) options_.on_error(status);
}

}  // namespace valuescope::jobs
