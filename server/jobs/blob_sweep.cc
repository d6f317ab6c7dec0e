#include "jobs/blob_sweep.h"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/error.h"
#include "base/failpoint.h"

namespace valuescope::jobs {

BlobSweep::BlobSweep(store::Store* store, store::BlobStore* blobs, BlobSweepOptions options)
    : store_(store), blobs_(blobs), options_(std::move(options)) {}

BlobSweep::~BlobSweep() { Stop(absl::InfiniteFuture()); }

void BlobSweep::Start() {
  VS_CHECK(!thread_.joinable());
  thread_ = std::thread([this] { Run(); });
}

void BlobSweep::BeginStop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

bool BlobSweep::Stop(absl::Time deadline) {
  BeginStop();
  if (!thread_.joinable()) return true;
  if (!ended_.WaitForNotificationWithDeadline(deadline)) return false;
  thread_.join();
  return true;
}

void BlobSweep::Run() {
  absl::Time next_scan = absl::InfinitePast();
  absl::Time next_sweep = absl::InfinitePast();
  while (true) {
    if (absl::Now() >= next_sweep) {
      Guarded(&BlobSweep::RemoveOrphans);
      next_sweep = absl::Now() + options_.sweep;
    }
    if (absl::Now() >= next_scan) {
      Guarded(&BlobSweep::Scan);
      next_scan = absl::Now() + options_.scan;
    }
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithDeadline(absl::Condition(&stopping_), std::min(next_sweep, next_scan))) {
      break;
    }
  }
  ended_.Notify();
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
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
    }
    const absl::Status removed =
        blobs_->Remove(orphan.digest, orphan.was_partial ? absl::ZeroDuration() : options_.grace);
    VS_FAILPOINT("orphan_removed");
    Report(removed);
    if (removed.ok() && options_.on_removed) options_.on_removed();
  }
}

void BlobSweep::Report(const absl::Status& status) {
  if (!status.ok() && options_.on_error) options_.on_error(status);
}

}  // namespace valuescope::jobs
