// The forward pass of steps, recorded where that is possible. A decode step (one token of each
// sequence, nothing captured) has the same operators at the same addresses as the one before, if
// its rows and blocks are padded to one of a few numbers; so it is recorded once for each of them,
// and for each set of intervention tables, and repeated with the numbers of the day.
#ifndef VALUESCOPE_ENGINE_RECORDED_STEPS_H_
#define VALUESCOPE_ENGINE_RECORDED_STEPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "engine/work_recorder.h"
#include "model/kv_cache.h"
#include "model/step.h"
#include "model/transformer.h"

namespace valuescope::engine {

// The number of rows, or of blocks, that a recorded step of `count` has: a power of two or one and
// a half of it, at most `most`. 1 <= count <= most.
int64_t RecordedExtent(int64_t count, int64_t most);

class RecordedSteps {
 public:
  // Without a recorder every step just runs.
  RecordedSteps(const model::Transformer& transformer, std::unique_ptr<WorkRecorder> recorder)
      : transformer_(transformer), recorder_(std::move(recorder)) {}

  bool records() const { return recorder_ != nullptr; }

  // As Transformer::Forward. `repeatable` says that the batch is a padded decode step whose tensors
  // keep their addresses. The result is overwritten by the next run.
  at::Tensor Run(const model::StepBatch& batch, model::KvCache& cache,
                 const model::StepProgram& program, bool repeatable);

  // How many runs repeated a recording.
  int64_t num_repeated() const { return num_repeated_; }

 private:
  // The shapes of a step and the addresses of its tables.
  using Key = std::vector<int64_t>;

  struct Recording {
    int times_seen = 0;
    int64_t last_used = 0;
    std::unique_ptr<RecordedWork> work;
    std::shared_ptr<at::Tensor> logits;  // [rows, vocabulary]
  };

  static Key KeyOf(const model::StepBatch& batch, const model::StepProgram& program);
  // Whether `recording` has work now. Where recording fails, nothing is recorded any more.
  bool Record(Recording& recording, const model::StepBatch& batch, model::KvCache& cache,
              const model::StepProgram& program);
  void ForgetOldest();

  const model::Transformer& transformer_;
  std::unique_ptr<WorkRecorder> recorder_;
  std::map<Key, Recording> recordings_;
  int64_t runs_ = 0;
  int64_t num_repeated_ = 0;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_RECORDED_STEPS_H_
