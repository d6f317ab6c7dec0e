// A shard that was leased while those that it builds on run elsewhere.
#ifndef VALUESCOPE_TESTS_KINDS_EARLY_SHARD_H_
#define VALUESCOPE_TESTS_KINDS_EARLY_SHARD_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "jobs/job_kind.h"

namespace valuescope::kinds {

class EarlyShard : public jobs::ShardContext {
 public:
  EarlyShard(std::string spec, int64_t shard) : spec_(std::move(spec)), shard_(shard) {}

  const std::string& tenant() const override { return tenant_; }
  const std::string& spec() const override { return spec_; }
  int64_t shard() const override { return shard_; }
  int64_t num_shards() const override { return shard_ + 1; }
  const std::string& cursor() const override { return empty_; }
  std::string TakePartial() override { return ""; }
  int64_t work_done() const override { return 0; }
  absl::StatusOr<store::ShardProgress> ProgressOf(int64_t shard) override {
    return progress.at(static_cast<size_t>(shard));
  }
  const Cancellation& cancellation() const override { return cancellation_; }
  absl::Status Checkpoint(absl::FunctionRef<std::string()>, absl::string_view, int64_t) override {
    return absl::OkStatus();
  }

  std::vector<store::ShardProgress> progress;  // of those before it

 private:
  const std::string tenant_ = "lab", empty_;
  const std::string spec_;
  const int64_t shard_;
  const Cancellation cancellation_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_TESTS_KINDS_EARLY_SHARD_H_
