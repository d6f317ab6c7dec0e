// Removes blobs that nobody names: what failed or killed writers left, and what lost its last name.
// Every scan asks of some blobs, in the order of their digests, whether anything names them; those
// without a name for longer than the grace are removed. A walk through all of them begins anew when
// it has ended, at a start of the server with the first, and before it what was left unfinished is
// removed. All of it in a thread of its own: blobs may be far away, and no lease waits for them.
//
// A writer has the grace twice, before its blob can be marked and before a marked one can be
// removed, to give it a name; one that writes the same bytes anew makes them young. Partials of
// shards are nobody else's: those that lost their name are removed without a grace.
#ifndef VALUESCOPE_JOBS_BLOB_SWEEP_H_
#define VALUESCOPE_JOBS_BLOB_SWEEP_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/recurring.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::jobs {

struct BlobSweepOptions {
  absl::Duration grace = absl::Hours(1);    // age at which blobs nobody names are removed
  absl::Duration sweep = absl::Seconds(5);  // between removals
  absl::Duration scan = absl::Minutes(1);   // between scans
  int64_t blobs_a_scan = 1000;              // looked at in one
  std::function<void()> on_removed;         // of a blob
  std::function<void(const absl::Status&)> on_error;
};

class BlobSweep {
 public:
  // `store` and `blobs` outlive it.
  BlobSweep(store::Store* store, store::BlobStore* blobs, BlobSweepOptions options);
  ~BlobSweep() { BeginStop(); }
  BlobSweep(const BlobSweep&) = delete;
  BlobSweep& operator=(const BlobSweep&) = delete;

  // Starts the thread, which ends with the sweep. Call once.
  void Start() { sweeping_.Start(); }

  // Asks the thread to end, without waiting for it. Idempotent.
  void BeginStop() {
    cancellation_.Cancel();
    sweeping_.BeginStop();
  }

  // The same, and false where it has not ended in `patience`. Idempotent.
  bool Stop(absl::Duration patience) {
    BeginStop();
    return sweeping_.Stop(patience);
  }

 private:
  // What is due; the time until something is.
  absl::Duration Sweep();
  void Guarded(void (BlobSweep::*step)());
  void Scan();
  void RemoveOrphans();
  void Report(const absl::Status& status);

  store::Store* const store_;
  store::BlobStore* const blobs_;
  const BlobSweepOptions options_;
  std::string scanned_;  // the last blob that a scan has seen; empty before a walk
  absl::Time next_scan_ = absl::InfinitePast(), next_removal_ = absl::InfinitePast();  // steady
  Cancellation cancellation_;
  Recurring sweeping_;
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_BLOB_SWEEP_H_
