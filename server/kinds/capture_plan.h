// What a capture leaves, known from the lengths of its inputs before anything runs: which tensors
// of which shapes, and in which files.
//
// A file has whole inputs, in order, and ends before the input that would make it larger than
// asked for, and where a shard of the work ends. So a shard makes its own files, and whoever runs
// them makes the same.
#ifndef VALUESCOPE_KINDS_CAPTURE_PLAN_H_
#define VALUESCOPE_KINDS_CAPTURE_PLAN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/request.h"
#include "engine/token_scope.h"
#include "jobs/work.h"
#include "model/architecture.h"
#include "studies/tensor_file.h"

namespace valuescope::kinds {

// Of a job.
inline constexpr int64_t kMostCaptureTensors = int64_t{1} << 21;
inline constexpr int64_t kMostCaptureBytes = int64_t{1} << 40;
inline constexpr int64_t kMostCaptureFiles = 4096;

class CapturePlan {
 public:
  // `max_file_bytes` >= 1.
  CapturePlan(const std::vector<engine::Tap>& taps, const model::Architecture& architecture,
              int64_t max_file_bytes);

  // What the taps read of input `index`, in the order in which the engine gives it; behind the
  // tensors of each tap the positions that it read.
  std::vector<studies::DeclaredTensor> TensorsOf(int64_t index,
                                                 const engine::SequenceExtent& extent) const;
  int64_t TensorsPerInput() const;
  // Of those tensors. At most 2^48 by the bounds of architecture and context.
  int64_t BytesOf(const engine::SequenceExtent& extent) const;

  // Inputs of a shard, of `inputs` that have so many bytes together: a fixed function, such that
  // most shards make one file.
  int64_t InputsPerShard(int64_t inputs, int64_t bytes) const;
  // The ends of the files that the inputs of a shard are in, ascending.
  std::vector<int64_t> FileEnds(
      const jobs::UnitRange& shard,
      absl::FunctionRef<engine::SequenceExtent(int64_t index)> extent_of) const;

 private:
  struct PlannedTap {
    engine::TokenSelection tokens;
    engine::Reduction reduction;
    DType dtype;
    std::vector<int64_t> layers;      // of a tensor each, where the tap has columns
    std::vector<int64_t> num_layers;  // of each tensor
    std::vector<int64_t> widths;      // of each tensor
  };
  // How many tokens a tap reads, and how many rows that leaves.
  struct Rows {
    int64_t read = 0;
    int64_t kept = 0;
  };

  static Rows RowsOf(const PlannedTap& tap, const engine::SequenceExtent& extent);

  std::vector<PlannedTap> taps_;
  int64_t max_file_bytes_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_CAPTURE_PLAN_H_
