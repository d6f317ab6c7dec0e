#include "jobs/leased_shard.h"

#include <utility>

#include "absl/algorithm/container.h"
#include "base/error.h"
#include "base/failpoint.h"
#include "base/status_macros.h"
#include "jobs/stored_partial.h"

namespace valuescope::jobs {
namespace {

constexpr char kTurnOver[] = "TURN_OVER";
// Of a turn, between questions whether others wait.
constexpr double kAskedAgainAfter = 0.1;

}  // namespace

absl::Status TimedLease::Charge(absl::FunctionRef<absl::Status(const store::Lease& lease)> write) {
  VS_RETURN_IF_ERROR(write(Charged()));
  told_until_ += lease_.worked;
  return absl::OkStatus();
}

const store::Lease& TimedLease::Charged() {
  lease_.worked = clock_.Now() - told_until_;
  return lease_;
}

bool IsTurnOver(const absl::Status& status) { return DetailsOf(status).reason == kTurnOver; }

LeasedShard::LeasedShard(JobQueue* queue, store::BlobStore* blobs, TimedLease* lease,
                         store::ShardProgress progress, const Cancellation& cancellation,
                         const TurnRules& rules, ShardHost host)
    : queue_(queue),
      blobs_(blobs),
      lease_(lease),
      progress_(std::move(progress)),
      cancellation_(cancellation),
      rules_(rules),
      host_(std::move(host)),
      committed_at_(lease_->lease().failures == 0 ? rules_.clock->Now() : absl::InfinitePast()),
      ask_at_(rules_.clock->Now() + rules_.turn) {}

absl::StatusOr<store::ShardProgress> LeasedShard::ProgressOf(int64_t shard) {
  return ReadShard(queue_->store(), *blobs_, lease_->lease(), shard);
}

void LeasedShard::Observe(std::vector<store::Observed> observed) {
  for (store::Observed& one : observed) {
    const auto known = absl::c_find_if(
        observed_, [&](const store::Observed& other) { return other.name == one.name; });
    if (known == observed_.end()) {
      observed_.push_back(std::move(one));
      continue;
    }
    known->count += one.count;
    known->sum += one.sum;
    known->sum_of_squares += one.sum_of_squares;
  }
}

absl::Status LeasedShard::Checkpoint(absl::FunctionRef<std::string()> partial,
                                     absl::string_view cursor, int64_t work_done) {
  VS_FAILPOINT("chunk_done");
  const absl::Time now = rules_.clock->Now();
  const bool stops = host_.stops(/*uncommitted=*/true);
  const bool over = !stops && IsTurnOverAt(now);
  if (!stops && !over && now < committed_at_ + rules_.commit_interval) return absl::OkStatus();
  VS_RETURN_IF_ERROR(Commit(partial(), cursor, work_done,
                            [&](const store::Lease& lease, const store::ShardProgress& progress) {
                              return queue_->store().CommitProgress(lease, progress);
                            }));
  queue_->Announce(lease_->lease().job_id);
  if (host_.stops(/*uncommitted=*/false)) {
    return ErrorWithReason(absl::StatusCode::kCancelled, "CANCELLED", "the shard is to stop");
  }
  if (!over) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kCancelled, kTurnOver, "others wait for the worker");
}

bool LeasedShard::IsTurnOverAt(absl::Time now) {
  if (now < ask_at_) return false;
  ask_at_ = now + kAskedAgainAfter * rules_.turn;
  return host_.others_wait(lease_->Charged());
}

absl::Status LeasedShard::Complete(ShardResult result) {
  VS_FAILPOINT("shard_done");
  return Commit(std::move(result.partial), /*cursor=*/"", result.work_done,
                [&](const store::Lease& lease, const store::ShardProgress& progress) {
                  return queue_->store().CompleteShard(lease, progress);
                });
}

absl::Status LeasedShard::Commit(std::string partial, absl::string_view cursor, int64_t work_done,
                                 Write write) {
  store::ShardProgress progress = {.partial = std::move(partial),
                                   .cursor = std::string(cursor),
                                   .work_done = work_done,
                                   .observed = std::exchange(observed_, {}),
                                   .blobs = named_blobs_};
  VS_RETURN_IF_ERROR(PutAside(*blobs_, rules_.partial_in_row, progress));
  VS_FAILPOINT("commit_begins");
  VS_RETURN_IF_ERROR(
      lease_->Charge([&](const store::Lease& lease) { return write(lease, progress); }));
  VS_FAILPOINT("committed");
  committed_at_ = rules_.clock->Now();
  return absl::OkStatus();
}

absl::StatusOr<store::Job> LeasedShard::StartChild(absl::string_view phase,
                                                   const store::NewJob& job) {
  return queue_->StartChild(lease_->lease(), phase, job);
}

absl::StatusOr<std::vector<store::Job>> LeasedShard::Children() {
  return queue_->ListChildren(tenant(), lease_->lease().job_id);
}

absl::Status LeasedShard::AwaitChildren(std::string partial, int64_t work_done, int64_t ended) {
  VS_RETURN_IF_ERROR(Commit(std::move(partial), /*cursor=*/"", work_done,
                            [&](const store::Lease& lease, const store::ShardProgress& progress) {
                              return queue_->store().AwaitChildren(lease, progress, ended,
                                                                   rules_.look_at_parts);
                            }));
  return ErrorWithReason(absl::StatusCode::kCancelled, kTurnOver, "the job waits for its parts");
}

}  // namespace valuescope::jobs
