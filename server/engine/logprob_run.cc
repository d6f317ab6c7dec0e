#include "engine/logprob_run.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <new>
#include <utility>
#include <variant>

#include "base/status_macros.h"
#include "engine/neuron_target.h"
#include "engine/sequence_copies.h"
#include "model/kernels.h"
#include "model/kv_cache.h"
#include "model/reference.h"
#include "model/site.h"
#include "model/step_scratch.h"

namespace valuescope::engine {
namespace {

using model::Site;

// Neurons whose logits are there at once, and elements of these.
constexpr int64_t kMostNeurons = 64;
constexpr int64_t kMostLogits = int64_t{1} << 22;
// Logits of neurons at tokens that a pass makes, unless one token has more, so that those who wait
// for the engine do not wait long.
constexpr int64_t kMostInPass = int64_t{1} << 25;

int64_t NeuronsAtOnce(const model::Architecture& a) {
  return std::clamp<int64_t>(kMostLogits / a.vocabulary, 1, std::min(kMostNeurons, a.intermediate));
}

int64_t TokensAtOnce(const model::Architecture& a) {
  return std::max<int64_t>(1, kMostInPass / (NeuronsAtOnce(a) * a.vocabulary));
}

// Positions that run: the last token predicts nothing.
int64_t PositionsOf(const NeuronRequest& request) { return LengthOf(request) - 1; }

// Of the device, at most.
int64_t BytesOf(const model::Transformer& transformer, const NeuronRequest& request) {
  const model::Architecture& a = transformer.architecture();
  const auto tokens = static_cast<int64_t>(request.response.size());
  const auto layers = static_cast<int64_t>(request.layers.size());
  const int64_t neurons = NeuronsAtOnce(a);
  // The clean pass, the neurons' logits and four of their kind that a token's changes go through,
  // and those of the tokens of a pass.
  const int64_t floats = layers * tokens * (a.hidden + a.intermediate) +
                         neurons * (5 * a.vocabulary + 4 * a.hidden + a.intermediate) +
                         4 * std::min(tokens, TokensAtOnce(a)) * (a.vocabulary + a.hidden);
  const SequenceCopies whole{.end = PositionsOf(request)};
  const int64_t block_bytes =
      model::KvCache::BytesPerBlock(a, SequenceCopies::kBlockTokens, transformer.dtype());
  return static_cast<int64_t>(sizeof(float)) * floats + whole.cache_blocks() * block_bytes +
         model::StepScratchBytes(a, transformer.device(), transformer.dtype(), whole.end,
                                 std::max(neurons, TokensAtOnce(a)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<NeuronRun>> LogprobRun::Start(const model::Transformer& transformer,
                                                             const NeuronRequest& request,
                                                             MemoryLedger& memory) {
  VS_ASSIGN_OR_RETURN(auto lease, memory.Take(BytesOf(transformer, request)));
  return std::unique_ptr<NeuronRun>(new LogprobRun(transformer, request, std::move(lease)));
}

LogprobRun::LogprobRun(const model::Transformer& transformer, const NeuronRequest& request,
                       std::shared_ptr<MemoryLedger::Lease> lease)
    : transformer_(transformer),
      request_(request),
      recomputes_norm_factor_(std::get<LogprobQuestion>(request.question).recomputes_norm_factor),
      lease_(std::move(lease)),
      at_once_(NeuronsAtOnce(transformer.architecture())) {}

void LogprobRun::Advance() {
  const c10::InferenceMode no_gradients;
  if (clean_.empty()) return RunClean();
  RunTokens();
}

void LogprobRun::RunClean() {
  const model::Architecture& a = transformer_.architecture();
  const c10::Device device = transformer_.device();
  const SequenceCopies whole{.end = PositionsOf(request_)};
  auto cache = model::KvCache::Allocate(a, whole.cache_blocks(), SequenceCopies::kBlockTokens,
                                        transformer_.dtype(), device);
  if (!cache.ok()) throw std::bad_alloc();
  const int64_t first = whole.end - static_cast<int64_t>(request_.response.size());
  model::StepProgram program(static_cast<size_t>(NumWires(a)));
  const auto keep = [&](Site site, int layer) {
    return Keep({site, layer}, first, whole.end, a, device, program);
  };
  for (const int layer : request_.layers) {
    clean_.push_back(
        {.mid = keep(Site::kResidualMid, layer), .written = keep(Site::kMlpWritten, layer)});
  }
  const int64_t any[] = {whole.end - 1};  // a step has some logits
  transformer_.Forward(BatchOf(whole, IdsOf(request_), any, device), *cache, program);
  BeginNeurons(0, 0);
}

void LogprobRun::BeginNeurons(size_t block, int64_t first) {
  const model::Architecture& a = transformer_.architecture();
  const int layer = request_.layers[block];
  const at::TensorOptions options = at::TensorOptions().device(transformer_.device());
  const at::Tensor neurons =
      at::arange(first, std::min(first + at_once_, a.intermediate), options.dtype(at::kLong));
  // The factor of a norm behind the MLP is in the activations.
  const at::Tensor one = at::ones({neurons.numel(), 1}, options.dtype(at::kFloat));
  now_ = {.block = block, .first = first};
  now_.columns = transformer_.MlpOutput(layer, transformer_.DownColumns(layer, neurons), one);
  now_.logits = transformer_.UnscaledLogits(now_.columns);
  now_.total = at::zeros({neurons.numel()}, options.dtype(at::kDouble));
}

LogprobRun::Read LogprobRun::ReadOf(int64_t first, int64_t count) const {
  const at::Tensor mid = clean_[now_.block].mid.narrow(0, first, count);
  return {.mid = mid,
          .factor = model::reference::RmsFactor(mid, transformer_.architecture().rms_norm_epsilon),
          .unscaled = transformer_.UnscaledLogits(mid)};
}

at::Tensor LogprobRun::FactorChanges(const at::Tensor& mid, const at::Tensor& activations) const {
  const double epsilon = transformer_.architecture().rms_norm_epsilon;
  const at::Tensor x = mid.to(at::kDouble), columns = now_.columns.to(at::kDouble);
  const at::Tensor a = activations.to(at::kDouble);
  const at::Tensor before = x.pow(2).mean();
  const at::Tensor more =
      a * (2 * at::mv(columns, x) + a * columns.pow(2).sum(1)) / static_cast<double>(x.numel());
  return at::sqrt((before + epsilon) / (before + more + epsilon)) - 1;
}

at::Tensor LogprobRun::Capped(const at::Tensor& logits) const {
  const double cap = transformer_.architecture().final_soft_cap;
  if (cap == 0) return logits;
  at::Tensor capped = logits.clone().view({-1, logits.size(-1)});
  model::SoftCap(capped, cap);
  return capped.view(logits.sizes());
}

void LogprobRun::RunTokens() {
  const model::Architecture& a = transformer_.architecture();
  const Clean& clean = clean_[now_.block];
  const auto tokens = static_cast<int64_t>(request_.response.size());
  const int64_t neurons = now_.total.numel();
  const int64_t first = now_.token, count = std::min(TokensAtOnce(a), tokens - first);
  const Read read = ReadOf(first, count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t next = request_.response[static_cast<size_t>(first + i)];
    const at::Tensor activations = clean.written[first + i].narrow(0, now_.first, neurons);
    const at::Tensor factors = activations * read.factor[i];
    const at::Tensor y = read.unscaled[i] * read.factor[i];
    if (a.final_soft_cap == 0 && !recomputes_norm_factor_) {
      now_.total += LogprobChanges(y.log_softmax(0), now_.logits, factors, next);
      continue;
    }
    at::Tensor changes = now_.logits * factors.unsqueeze(1);
    if (recomputes_norm_factor_) {
      const at::Tensor more = FactorChanges(read.mid[i], activations).to(at::kFloat).unsqueeze(1);
      changes += more * (y + changes);
    }
    const at::Tensor logits = Capped(y);
    if (a.final_soft_cap > 0) changes = Capped(y + changes) - logits;
    now_.total += LogprobChanges(logits.log_softmax(0), changes, at::ones_like(activations), next);
  }
  now_.token += count;
  if (now_.token < tokens) return;
  const std::vector<float> totals = Numbers(now_.total);
  result_.scores.insert(result_.scores.end(), totals.begin(), totals.end());
  const int64_t next = now_.first + neurons;
  if (next < a.intermediate) return BeginNeurons(now_.block, next);
  done_ = now_.block + 1 == request_.layers.size();
  if (!done_) BeginNeurons(now_.block + 1, 0);
}

}  // namespace valuescope::engine
