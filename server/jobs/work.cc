#include "jobs/work.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::jobs {
namespace {

absl::StatusOr<int64_t> UnitsDone(absl::string_view cursor, int64_t units) {
  int64_t done = 0;
  if (cursor.empty()) return done;
  if (absl::SimpleAtoi(cursor, &done) && done >= 0 && done <= units) return done;
  return PartialDamaged();
}

// Calls `offer(done)` between two chunks of a shard whose first `done` units are in `partial`.
template <typename Offer>
absl::Status RunChunks(Work& work, int64_t shard, int64_t done, const Cancellation& cancellation,
                       Partial& partial, const Offer& offer) {
  const Extent extent = work.extent();
  const UnitRange units = extent.UnitsOf(shard);
  const int64_t most = extent.UnitsPerChunkOf(shard);
  while (done < units.size()) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    const int64_t first = units.first + done, count = std::min(most, units.size() - done);
    VS_RETURN_IF_ERROR(work.RunChunk({first, first + count}, cancellation, partial));
    done += count;
    if (done < units.size()) VS_RETURN_IF_ERROR(offer(done));
  }
  return absl::OkStatus();
}

// Adds one of the shards that others build on, which is to be finished.
absl::Status FoldFirst(Work& work, ShardContext& context, int64_t shard, Partial& all) {
  const int64_t size = work.extent().UnitsOf(shard).size();
  VS_ASSIGN_OR_RETURN(const store::ShardProgress first, context.ProgressOf(shard));
  if (first.work_done < size) {
    return RetryLater("FIRST_SHARD_RUNS", "a shard that the others build on is not finished",
                      absl::Seconds(1));
  }
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Partial> part, work.Parse(first.partial, size, size));
  return work.Fold(*part, all);
}

// Where other shards build on the first ones: a worker that leased one of them before those are
// finished gives it back for now.
absl::Status PrepareFromFirst(Work& work, ShardContext& context) {
  const Extent extent = work.extent();
  const int64_t shards = extent.preparing.num_shards();
  if (context.shard() < shards || shards == 0) return absl::OkStatus();
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Partial> all, work.Begin(extent.preparing.units));
  for (int64_t shard = 0; shard < shards; ++shard) {
    VS_RETURN_IF_ERROR(OfShard(shard, FoldFirst(work, context, shard, *all)));
  }
  return work.Prepare(*all);
}

// Adds a finished shard to all before it.
absl::Status FoldShard(Work& work, int64_t shard, const Partial& part, Partial& whole) {
  VS_RETURN_IF_ERROR(work.Fold(part, whole));
  if (shard + 1 != work.extent().preparing.num_shards()) return absl::OkStatus();
  return work.Prepare(whole);
}

// What the shard of `size` units came to. Its bytes are gone when it is folded.
absl::StatusOr<std::unique_ptr<Partial>> ReadFinished(Work& work, const MergeContext& context,
                                                      int64_t shard, int64_t size) {
  VS_ASSIGN_OR_RETURN(const std::string bytes, context.partial(shard));
  return work.Parse(bytes, size, size);
}

absl::Status MergeShard(Work& work, const MergeContext& context, int64_t shard, Partial& whole) {
  const int64_t size = work.extent().UnitsOf(shard).size();
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Partial> part,
                      ReadFinished(work, context, shard, size));
  return FoldShard(work, shard, *part, whole);
}

}  // namespace

int64_t Extent::Preparing::num_shards() const {
  return units == 0 ? 0 : (units - 1) / units_per_shard + 1;
}

int64_t Extent::num_shards() const {
  const int64_t others = units - preparing.units;
  return preparing.num_shards() + (others + units_per_shard - 1) / units_per_shard;
}

UnitRange Extent::UnitsOf(int64_t shard) const {
  const int64_t others = shard - preparing.num_shards();
  if (others < 0) {
    const int64_t first = shard * preparing.units_per_shard;
    return {first, std::min(preparing.units, first + preparing.units_per_shard)};
  }
  const int64_t first = preparing.units + others * units_per_shard;
  return {first, std::min(units, first + units_per_shard)};
}

int64_t Extent::UnitsPerChunkOf(int64_t shard) const {
  return shard < preparing.num_shards() ? preparing.units_per_chunk : units_per_chunk;
}

absl::StatusOr<std::unique_ptr<Outcome>> RunAtOnce(Work& work, const Cancellation& cancellation) {
  const Extent extent = work.extent();
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Partial> whole, work.Begin(extent.units));
  for (int64_t shard = 0; shard < extent.num_shards(); ++shard) {
    VS_ASSIGN_OR_RETURN(const std::unique_ptr<Partial> part,
                        work.Begin(extent.UnitsOf(shard).size()));
    VS_RETURN_IF_ERROR(RunChunks(work, shard, /*done=*/0, cancellation, *part,
                                 [](int64_t) { return absl::OkStatus(); }));
    VS_RETURN_IF_ERROR(FoldShard(work, shard, *part, *whole));
  }
  return work.Finish(*whole, cancellation);
}

absl::StatusOr<ShardResult> WorkKind::RunShard(ShardContext& context) {
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Work> work, Open(context.tenant(), context.spec()));
  VS_RETURN_IF_ERROR(PrepareFromFirst(*work, context));
  const UnitRange units = work->extent().UnitsOf(context.shard());
  VS_ASSIGN_OR_RETURN(const int64_t done, UnitsDone(context.cursor(), units.size()));
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Partial> partial,
                      done == 0 ? work->Begin(units.size())
                                : work->Parse(context.TakePartial(), done, units.size()));
  int64_t observed = done;
  const auto tell_up_to = [&](int64_t now) {
    context.Observe(work->Observe({units.first + observed, units.first + now}));
    context.NameBlobs(partial->Blobs());
    observed = now;
  };
  VS_RETURN_IF_ERROR(
      RunChunks(*work, context.shard(), done, context.cancellation(), *partial, [&](int64_t now) {
        tell_up_to(now);
        return context.Checkpoint([&] { return partial->Serialize(); }, absl::StrCat(now), now);
      }));
  tell_up_to(units.size());
  return ShardResult{.partial = partial->Serialize(), .work_done = units.size()};
}

absl::StatusOr<JobResult> WorkKind::Merge(const MergeContext& context) {
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Work> work, Open(context.tenant, context.spec));
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Partial> whole, work->Begin(work->extent().units));
  for (int64_t shard = 0; shard < context.num_shards; ++shard) {
    VS_RETURN_IF_ERROR(CheckGoesOn(context.cancellation));
    VS_RETURN_IF_ERROR(OfShard(shard, MergeShard(*work, context, shard, *whole)));
  }
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<Outcome> outcome,
                      work->Finish(*whole, context.cancellation));
  JobResult result;
  VS_ASSIGN_OR_RETURN(result.resources, outcome->Resources(context.blobs));
  VS_ASSIGN_OR_RETURN(result.artifacts, outcome->Artifacts(context.blobs));
  result.summary = outcome->Summary(result.resources);
  if (result.summary.size() > kMostSummaryBytes) {
    result.summary = absl::StrCat("{\"left_out_bytes\":", result.summary.size(), "}");
  }
  return result;
}

}  // namespace valuescope::jobs
