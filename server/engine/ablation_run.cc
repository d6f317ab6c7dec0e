#include "engine/ablation_run.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/status_macros.h"
#include "engine/clean_pass.h"
#include "model/device_types.h"
#include "model/reference.h"
#include "model/site.h"
#include "model/step_scratch.h"

namespace valuescope::engine {
namespace {

using model::Site;

// That run in a pass, so that those who wait for the engine do not wait long.
constexpr int64_t kMostTokens = 256;
// Elements of logits that are there at once, unless one copy has more.
constexpr int64_t kMostLogits = int64_t{1} << 22;

// Neurons of the request's layer at `block`; null: all of them.
const NeuronIndices* AskedOf(const AblationQuestion& question, size_t block) {
  return question.neurons.empty() ? nullptr : &question.neurons[block];
}

bool AsksAbout(const AblationQuestion& question, size_t block) {
  const NeuronIndices* asked = AskedOf(question, block);
  return asked == nullptr || !asked->values().empty();
}

// Copies whose logits are made together, of `rows` rows each.
int64_t CopiesWithLogits(const model::Architecture& a, int64_t rows) {
  return std::max<int64_t>(1, kMostLogits / (rows * a.vocabulary));
}

// Of the device, at most.
int64_t BytesOf(const model::Transformer& transformer, const NeuronRequest& request,
                const Restart& restart) {
  const model::Architecture& a = transformer.architecture();
  const SequenceCopies& copies = restart.copies;
  const int64_t count = copies.count, positions = copies.length(), tokens = count * positions;
  const auto read = static_cast<int64_t>(restart.places.read.size());
  const int64_t logits =
      ReadsLogits(request) ? read * std::min(count, CopiesWithLogits(a, read)) : 0;
  // What is kept of the clean pass, a block's own part, and what the ablated copies are made of.
  const int64_t layers = static_cast<int64_t>(request.layers.size()) + 3;
  const int64_t floats = layers * positions * (a.hidden + a.intermediate) +
                         read * (ReadsLogits(request) ? 2 * a.vocabulary : a.hidden) +
                         count * (a.intermediate + a.hidden) + 6 * tokens * a.hidden +
                         4 * logits * a.vocabulary;
  const int64_t block_bytes =
      model::KvCache::BytesPerBlock(a, SequenceCopies::kBlockTokens, transformer.dtype());
  return static_cast<int64_t>(sizeof(float)) * floats + copies.cache_blocks() * block_bytes +
         model::StepScratchBytes(a, transformer.device(), transformer.dtype(),
                                 std::max(tokens, copies.end), std::max<int64_t>(1, logits));
}

int64_t MostCopies(const NeuronRequest& request, const SequenceCopies& copies, int64_t width) {
  const auto& question = std::get<AblationQuestion>(request.question);
  int64_t most = 0;
  for (size_t block = 0; block < request.layers.size(); ++block) {
    const NeuronIndices* asked = AskedOf(question, block);
    most = std::max(most, asked == nullptr ? width : static_cast<int64_t>(asked->values().size()));
  }
  return std::clamp<int64_t>(kMostTokens / copies.length(), 1, most);
}

}  // namespace

absl::StatusOr<std::unique_ptr<NeuronRun>> AblationRun::Start(const model::Transformer& transformer,
                                                              const NeuronRequest& request,
                                                              MemoryLedger& memory) {
  Restart restart = RestartOf(request, transformer.architecture());
  int64_t& copies = restart.copies.count;
  copies = MostCopies(request, restart.copies, transformer.architecture().intermediate);
  while (true) {
    auto lease = memory.Take(BytesOf(transformer, request, restart));
    if (lease.ok()) {
      return std::unique_ptr<NeuronRun>(
          new AblationRun(transformer, request, std::move(restart), *std::move(lease)));
    }
    if (copies == 1) return lease.status();
    copies /= 2;
  }
}

AblationRun::AblationRun(const model::Transformer& transformer, const NeuronRequest& request,
                         Restart restart, std::shared_ptr<MemoryLedger::Lease> lease)
    : transformer_(transformer),
      request_(request),
      question_(std::get<AblationQuestion>(request.question)),
      lease_(std::move(lease)),
      ids_(IdsOf(request)),
      restart_(std::move(restart)) {
  result_.scores.resize(request.layers.size() *
                        static_cast<size_t>(transformer.architecture().intermediate));
}

void AblationRun::Advance() {
  const c10::InferenceMode no_gradients;
  if (clean_.empty()) return RunClean();
  RunCopies();
}

void AblationRun::RunClean() {
  CleanPass pass(transformer_, restart_);
  for (size_t block = 0; block < request_.layers.size(); ++block) {
    Clean& own = clean_.emplace_back();
    if (!AsksAbout(question_, block)) continue;
    own.mid = pass.Keep(Site::kResidualMid, request_.layers[block]);
    own.neurons = pass.Keep(Site::kMlpNeurons, request_.layers[block]);
  }
  const at::Tensor read = pass.Keep(Site::kResidualPost, restart_.last);
  cache_ = pass.Run(ids_, request_.layers.front() + 1);
  clean_read_ = read.index_select(0, OnDevice(restart_.reread, transformer_.device()));
  if (ReadsLogits(request_)) {
    clean_read_ = transformer_.Logits(clean_read_.to(model::ScalarTypeOf(transformer_.dtype())));
  }
  BeginBlock(0);
}

void AblationRun::BeginBlock(size_t block) {
  while (block < request_.layers.size() && !AsksAbout(question_, block)) ++block;
  done_ = block == request_.layers.size();
  if (done_) return;
  const model::Architecture& a = transformer_.architecture();
  const int layer = request_.layers[block];
  const Clean& clean = clean_[block];
  const c10::ScalarType type = model::ScalarTypeOf(transformer_.dtype());
  const at::Tensor projected = transformer_.DownProjected(layer, clean.neurons.to(type));
  now_ = {.block = block, .next = 0, .mid = clean.mid.to(type)};
  now_.projected = projected.to(at::kFloat);
  if (question_.holds_norm_factor && a.post_norms) {
    now_.factor = model::reference::RmsFactor(projected, a.rms_norm_epsilon);
  }
  now_.lost = at::zeros_like(clean.neurons);
  const at::Tensor at_tokens = OnDevice(restart_.AskedRows(), transformer_.device());
  at::Tensor lost = clean.neurons.index_select(0, at_tokens);
  if (question_.base != nullptr) {
    const auto width = static_cast<size_t>(a.intermediate);
    const std::vector<float> base(
        question_.base->begin() + static_cast<int64_t>(block * width),
        question_.base->begin() + static_cast<int64_t>((block + 1) * width));
    lost -= at::tensor(base, at::kFloat).to(transformer_.device());
  }
  now_.lost.index_copy_(0, at_tokens, lost);
  if (const NeuronIndices* asked = AskedOf(question_, block)) {
    now_.asked = asked->values();
  } else {
    now_.asked.resize(static_cast<size_t>(a.intermediate));
    std::iota(now_.asked.begin(), now_.asked.end(), 0);
  }
}

void AblationRun::RunCopies() {
  const auto count =
      std::min(static_cast<size_t>(restart_.copies.count), now_.asked.size() - now_.next);
  const auto neurons = std::span<const int64_t>(now_.asked).subspan(now_.next, count);
  SequenceCopies copies = restart_.copies;
  copies.count = static_cast<int64_t>(count);
  const c10::Device device = transformer_.device();
  const at::Tensor x = transformer_.RunBlocks(request_.layers[now_.block] + 1, restart_.last,
                                              Ablated(OnDevice(neurons, device)),
                                              BatchOf(copies, ids_, {}, device), cache_);
  const std::vector<float> effects = Numbers(-ChangesOf(x));
  const size_t first = now_.block * static_cast<size_t>(transformer_.architecture().intermediate);
  for (size_t i = 0; i < count; ++i) {
    result_.scores[first + static_cast<size_t>(neurons[i])] = effects[i];
  }
  now_.next += count;
  if (now_.next == now_.asked.size()) BeginBlock(now_.block + 1);
}

at::Tensor AblationRun::Ablated(const at::Tensor& neurons) const {
  const int layer = request_.layers[now_.block];
  const int64_t count = neurons.numel(), hidden = now_.mid.size(1);
  const at::Tensor columns = transformer_.DownColumns(layer, neurons);
  const at::Tensor lost = now_.lost.index_select(1, neurons).t();
  const at::Tensor projected = now_.projected - lost.unsqueeze(2) * columns.unsqueeze(1);
  const at::Tensor factor = now_.factor.defined() ? now_.factor.repeat({count, 1}) : at::Tensor();
  const at::Tensor written = transformer_.MlpOutput(
      layer, projected.to(now_.mid.scalar_type()).reshape({-1, hidden}), factor);
  return now_.mid.repeat({count, 1}).add_(written);
}

at::Tensor AblationRun::ChangesOf(const at::Tensor& x) const {
  const at::Tensor read = x.view({-1, restart_.copies.length(), x.size(1)})
                              .index_select(1, OnDevice(restart_.reread, transformer_.device()));
  const auto num_read = static_cast<int64_t>(restart_.places.read.size());
  if (!ReadsLogits(request_)) {
    return TargetChanges(request_, num_read, clean_read_, read.to(at::kFloat));
  }
  std::vector<at::Tensor> changes;
  for (const at::Tensor& some :
       read.split(CopiesWithLogits(transformer_.architecture(), read.size(1)))) {
    const at::Tensor logits = transformer_.Logits(some.reshape({-1, some.size(2)}));
    changes.push_back(TargetChanges(request_, num_read, clean_read_,
                                    logits.view({some.size(0), some.size(1), -1})));
  }
  return at::cat(changes);
}

}  // namespace valuescope::engine
