// A job kind for tests: every shard writes a few letters, one a chunk, and checkpoints each; the
// merge joins them in one artifact. Tests hook in between the chunks.
#ifndef VALUESCOPE_TESTS_JOBS_LETTERS_KIND_H_
#define VALUESCOPE_TESTS_JOBS_LETTERS_KIND_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "jobs/job_kind.h"

namespace valuescope::jobs {

class LettersKind : public JobKind {
 public:
  static constexpr int64_t kChunks = 4;
  static constexpr int64_t kShards = 12;

  // Called before each chunk; an error ends the shard.
  std::function<absl::Status(ShardContext&, int64_t chunk)> before_chunk;
  // Called when the checkpoint behind a chunk was offered.
  std::function<void(const ShardContext&, int64_t chunk)> after_chunk;
  // Called before the merge reads the partial of a shard.
  std::function<void(int64_t shard)> before_merged;
  // Answers Readiness; empty: everything is ready.
  std::function<absl::Status(absl::string_view needs)> readiness;

  absl::string_view Name() const override { return "letters"; }

  absl::Status Readiness(absl::string_view needs) const override {
    return readiness ? readiness(needs) : absl::OkStatus();
  }

  absl::StatusOr<ShardResult> RunShard(ShardContext& context) override {
    std::string partial = context.TakePartial();
    int64_t chunk = 0;
    if (!context.cursor().empty() && !absl::SimpleAtoi(context.cursor(), &chunk)) {
      return absl::InternalError("the cursor is damaged");
    }
    for (; chunk < kChunks; ++chunk) {
      if (context.cancellation().cancelled()) return absl::CancelledError("");
      if (before_chunk) VS_RETURN_IF_ERROR(before_chunk(context, chunk));
      partial += static_cast<char>('a' + (context.shard() * kChunks + chunk) % 26);
      Record(context.shard(), chunk);
      VS_RETURN_IF_ERROR(
          context.Checkpoint([&] { return partial; }, absl::StrCat(chunk + 1), chunk + 1));
      if (after_chunk) after_chunk(context, chunk);
    }
    return ShardResult{.partial = partial, .work_done = kChunks};
  }

  absl::StatusOr<JobResult> Merge(const MergeContext& context) override {
    std::vector<std::string> partials;
    for (int64_t shard = 0; shard < context.num_shards; ++shard) {
      if (before_merged) before_merged(shard);
      VS_ASSIGN_OR_RETURN(partials.emplace_back(), context.partial(shard));
    }
    VS_ASSIGN_OR_RETURN(const store::StoredBlob blob,
                        store::WriteBlob(context.blobs, absl::StrJoin(partials, "|")));
    JobResult result;
    result.artifacts.push_back({.role = "letters",
                                .display_name = "letters.txt",
                                .media_type = "text/plain",
                                .metadata = "{}",
                                .format_version = 1,
                                .blob = blob});
    result.summary = absl::StrCat("{\"shards\":", context.num_shards, "}");
    return result;
  }

  // "SHARD.CHUNK" of every chunk that was computed, in order.
  std::vector<std::string> computed() {
    absl::MutexLock lock(&mutex_);
    return computed_;
  }

  static store::NewJob Job(const std::string& tenant = "lab", int64_t shards = kShards) {
    store::NewJob job;
    job.tenant = tenant;
    job.kind = "letters";
    job.spec = "{}";
    job.num_shards = shards;
    job.total_work = shards * kChunks;
    return job;
  }

 private:
  void Record(int64_t shard, int64_t chunk) {
    absl::MutexLock lock(&mutex_);
    computed_.push_back(absl::StrCat(shard, ".", chunk));
  }

  absl::Mutex mutex_;
  std::vector<std::string> computed_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace valuescope::jobs

#endif  // VALUESCOPE_TESTS_JOBS_LETTERS_KIND_H_
