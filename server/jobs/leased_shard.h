// A shard under its lease: when a checkpoint is committed, and when the shard's turn is over.
//
// A kind offers a checkpoint after every chunk; most are not taken, because each costs a write that
// has to reach the disk. One is taken where the last commit is an interval ago, so kill -9 loses
// the work of one interval, or one chunk where that takes longer; where the shard is to stop; where
// its turn is over; and the first one of a shard that had failed, so that one which gets on a
// little each time ends. Watchers see what is committed.
//
// A turn is over after a bounded time, where others wait for the worker (store::Store::OthersWait):
// the lease is given back without blame, and whoever leases the shard next goes on from its cursor.
#ifndef VALUESCOPE_JOBS_LEASED_SHARD_H_
#define VALUESCOPE_JOBS_LEASED_SHARD_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/clock.h"
#include "jobs/job_kind.h"
#include "jobs/job_queue.h"
#include "store/blob_store.h"
#include "store/store.h"

namespace valuescope::jobs {

struct TurnRules {
  absl::Duration commit_interval = absl::Seconds(2);  // between commits of a shard
  // Between looks of a job at those that it is made of, while none of them ends.
  absl::Duration look_at_parts = absl::Seconds(2);
  absl::Duration turn = absl::Seconds(10);  // before a shard gives way to others
  int64_t partial_in_row = 64 << 10;        // bytes; larger ones are blobs
  const Clock* clock = &Clock::Steady();    // that time and the time of work
};

// A lease, and the time of work on it that the store has not been told of.
class TimedLease {
 public:
  TimedLease(store::Lease lease, const Clock* clock)
      : lease_(std::move(lease)), clock_(*clock), told_until_(clock_.Now()) {}

  const store::Lease& lease() const { return lease_; }
  store::Lease Take() && { return std::move(lease_); }

  // The lease, charged with that time.
  const store::Lease& Charged();

  // Calls `write` with it; the time is told where that returns OK.
  absl::Status Charge(absl::FunctionRef<absl::Status(const store::Lease& lease)> write);

 private:
  store::Lease lease_;
  const Clock& clock_;
  absl::Time told_until_;
};

// What a shard asks its worker.
struct ShardHost {
  // The shard has something to commit (or has no more): a worker that is to stop lets it come to
  // its next checkpoint then. True where it is to stop.
  std::function<bool(bool uncommitted)> stops;
  std::function<bool(const store::Lease& lease)> others_wait;  // see store::Store::OthersWait
};

// A shard gave its lease back, for others or until its parts have ended.
bool IsTurnOver(const absl::Status& status);

class LeasedShard : public ShardContext {
 public:
  // All but `progress` outlive it.
  LeasedShard(JobQueue* queue, store::BlobStore* blobs, TimedLease* lease,
              store::ShardProgress progress, const Cancellation& cancellation,
              const TurnRules& rules, ShardHost host);

  const std::string& tenant() const override { return lease_->lease().tenant; }
  const std::string& spec() const override { return lease_->lease().spec; }
  int64_t shard() const override { return lease_->lease().shard; }
  int64_t num_shards() const override { return lease_->lease().num_shards; }
  const std::string& cursor() const override { return progress_.cursor; }
  std::string TakePartial() override { return std::exchange(progress_.partial, {}); }
  int64_t work_done() const override { return progress_.work_done; }
  const Cancellation& cancellation() const override { return cancellation_; }

  absl::StatusOr<store::ShardProgress> ProgressOf(int64_t shard) override;
  void Observe(std::vector<store::Observed> observed) override;
  void NameBlobs(std::vector<std::string> digests) override { named_blobs_ = std::move(digests); }
  absl::Status Checkpoint(absl::FunctionRef<std::string()> partial, absl::string_view cursor,
                          int64_t work_done) override;
  // Commits what the shard came to. The lease is given back.
  absl::Status Complete(ShardResult result);
  absl::StatusOr<store::Job> StartChild(absl::string_view phase, const store::NewJob& job) override;
  absl::StatusOr<std::vector<store::Job>> Children() override;
  absl::Status AwaitChildren(std::string partial, int64_t work_done, int64_t ended) override;

 private:
  using Write =
      absl::FunctionRef<absl::Status(const store::Lease& lease, const store::ShardProgress&)>;

  bool IsTurnOverAt(absl::Time now);
  absl::Status Commit(std::string partial, absl::string_view cursor, int64_t work_done,
                      Write write);

  JobQueue* const queue_;
  store::BlobStore* const blobs_;
  TimedLease* const lease_;
  store::ShardProgress progress_;
  const Cancellation cancellation_;
  const TurnRules& rules_;
  const ShardHost host_;
  std::vector<store::Observed> observed_;
  std::vector<std::string> named_blobs_;
  absl::Time committed_at_;
  absl::Time ask_at_;  // when others are asked about next
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_JOBS_LEASED_SHARD_H_
