// Runs whole sequences through Transformer::Forward: any split into steps, any company, one cache.
#ifndef VALUESCOPE_TESTS_MODEL_FORWARD_HARNESS_H_
#define VALUESCOPE_TESTS_MODEL_FORWARD_HARNESS_H_

#include <ATen/ATen.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "model/site.h"
#include "model/transformer.h"

namespace valuescope::model {

inline constexpr int64_t kBlockSize = 16;

// What weights may be stored as.
inline constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

// A model of tests/golden/families, and what it computes in.
struct Golden {
  const char* name = "";
  DType dtype = DType::kFloat32;
};

// One sequence's piece of a step: tokens first .. first + count - 1.
struct Piece {
  int sequence = 0;
  int64_t first = 0;
  int64_t count = 0;
};

// The activity of a stage's table whose rows all act, but for row 0: [capacity].
inline at::Tensor EveryRowActive(int64_t capacity) {
  at::Tensor active = at::full({capacity}, kActs, at::kByte);
  active[0] = kInactive;
  return active;
}

// What gradients on `path` need.
inline std::shared_ptr<const GradientWeights> WeightsFor(const Transformer& model,
                                                         const GradientPath& path = {}) {
  auto weights = model.MakeGradientWeights(path, {});
  VS_CHECK(weights.ok());
  return *std::move(weights);
}

class ForwardHarness {
 public:
  ForwardHarness(const Transformer& model, std::vector<std::vector<int64_t>> sequences)
      : model_(model), sequences_(std::move(sequences)) {
    size_t longest = 0;
    for (const auto& ids : sequences_) longest = std::max(longest, ids.size() + 64);
    blocks_each_ = static_cast<int64_t>(longest) / kBlockSize + 1;
    cache_ = *KvCache::Allocate(model.architecture(),
                                blocks_each_ * static_cast<int64_t>(sequences_.size()), kBlockSize,
                                model.dtype(), c10::kCPU);
    // What a cache holds before it is written to is anybody's guess, so here it is the worst.
    for (std::vector<at::Tensor>* part : {&cache_.keys, &cache_.values}) {
      for (at::Tensor& layer : *part) layer.fill_(std::numeric_limits<float>::quiet_NaN());
    }
    program_.resize(NumWires(model.architecture()));
  }

  StepProgram& program() { return program_; }
  std::vector<std::vector<int64_t>>& sequences() { return sequences_; }

  // Logits of every token of the step, in the order of the pieces: [num_tokens, vocabulary].
  at::Tensor Run(const std::vector<Piece>& pieces, const std::vector<int64_t>& table_rows = {},
                 GradientTape* tape = nullptr) {
    std::vector<int64_t> ids, positions, sequence_rows, slots, logit_tokens;
    const int64_t num_sequences = static_cast<int64_t>(sequences_.size());
    at::Tensor tables =
        at::arange(num_sequences * blocks_each_, at::kLong).view({num_sequences, blocks_each_});
    int64_t most_tokens = 0;
    for (const Piece& piece : pieces) {
      most_tokens = std::max(most_tokens, piece.count);
      for (int64_t p = piece.first; p < piece.first + piece.count; ++p) {
        logit_tokens.push_back(static_cast<int64_t>(ids.size()));
        ids.push_back(sequences_[piece.sequence][p]);
        positions.push_back(p);
        sequence_rows.push_back(piece.sequence);
        slots.push_back(piece.sequence * blocks_each_ * kBlockSize + p);
      }
    }
    std::vector<int64_t> rows = table_rows;
    rows.resize(ids.size());
    return model_.Forward({.token_ids = at::tensor(ids, at::kLong),
                           .positions = at::tensor(positions, at::kLong),
                           .sequences = at::tensor(sequence_rows, at::kLong),
                           .cache_slots = at::tensor(slots, at::kLong),
                           .block_tables = tables,
                           .table_rows = at::tensor(rows, at::kLong),
                           .logit_tokens = at::tensor(logit_tokens, at::kLong),
                           .most_tokens = most_tokens},
                          cache_, program_, tape);
  }

  at::Tensor RunWhole(int sequence) {
    return Run({{sequence, 0, static_cast<int64_t>(sequences_[sequence].size())}});
  }

 private:
  const Transformer& model_;
  std::vector<std::vector<int64_t>> sequences_;
  int64_t blocks_each_ = 0;
  KvCache cache_;
  StepProgram program_;
};

// |a - b| / |b| over all elements.
inline double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor wide = expected.to(at::kDouble);
  return ((actual.to(at::kDouble) - wide).norm() / wide.norm()).item<double>();
}

}  // namespace valuescope::model

#endif  // VALUESCOPE_TESTS_MODEL_FORWARD_HARNESS_H_
