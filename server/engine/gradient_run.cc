#include "engine/gradient_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <new>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/status_macros.h"
#include "engine/sequence_copies.h"
#include "model/device_types.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

using model::Site;

constexpr int64_t kBlockTokens = SequenceCopies::kBlockTokens;

// The first ones that share a pass, as a rectangle of sequences; at least one.
std::span<const NeuronRequest> SharingAPass(std::span<const NeuronRequest> requests,
                                            int64_t most_tokens) {
  size_t count = 1;
  int64_t longest = LengthOf(requests[0]);
  for (; count < requests.size(); ++count) {
    longest = std::max(longest, LengthOf(requests[count]));
    if (static_cast<int64_t>(count + 1) * longest > most_tokens) break;
  }
  return requests.first(count);
}

int64_t LongestOf(std::span<const NeuronRequest> requests) {
  int64_t longest = 0;
  for (const NeuronRequest& request : requests) longest = std::max(longest, LengthOf(request));
  return longest;
}

int64_t BytesOf(std::span<const NeuronRequest> requests, const model::Transformer& transformer) {
  const model::Architecture& a = transformer.architecture();
  const int64_t longest = LongestOf(requests);
  const auto sequences = static_cast<int64_t>(requests.size());
  const auto layers = static_cast<int64_t>(requests[0].layers.size());
  const int64_t tokens = sequences * longest;
  const SequenceCopies whole{.count = sequences, .end = longest};
  return static_cast<int64_t>(sizeof(float)) * layers * tokens * (2 * a.intermediate + a.hidden) +
         RecordedBytes(a, tokens, whole.own_blocks() * kBlockTokens) +
         whole.cache_blocks() * model::KvCache::BytesPerBlock(a, kBlockTokens, transformer.dtype());
}

}  // namespace

std::vector<GradientSums> GradientSumsOf(const at::Tensor& neurons, const at::Tensor& gradients,
                                         std::span<const int64_t> counts) {
  const c10::NoGradGuard not_followed;
  std::vector<GradientSums> sums;
  int64_t first = 0;
  for (const int64_t count : counts) {
    const at::Tensor own = gradients.narrow(0, first, count);
    const at::Tensor attributions = neurons.narrow(0, first, count) * own;
    sums.push_back({.attributions = Numbers(attributions.sum(0, false, at::kDouble)),
                    .gradients = Numbers(own.sum(0, false, at::kDouble))});
    first += count;
  }
  return sums;
}

void Append(const GradientSums& sums, NeuronScores& scores) {
  scores.scores.insert(scores.scores.end(), sums.attributions.begin(), sums.attributions.end());
  scores.gradients.insert(scores.gradients.end(), sums.gradients.begin(), sums.gradients.end());
}

int64_t RecordedBytes(const model::Architecture& a, int64_t tokens, int64_t length) {
  const int64_t heads = a.num_heads * a.head_dim, keys = a.num_kv_heads * a.head_dim;
  // What the nodes of a block keep, and what the derivative of the largest one makes on its way.
  const int64_t kept = 8 * a.hidden + 4 * (heads + 2 * keys) + 2 * heads + 4 * a.intermediate;
  const int64_t attention = 6 * length * a.num_heads + 8 * (heads + 2 * keys);
  const int64_t logits = 6 * a.vocabulary;
  return static_cast<int64_t>(sizeof(float)) * tokens *
         (a.num_layers * kept + attention + logits + 8 * a.intermediate);
}

int64_t TokensOfARecordedPass(const model::Architecture& architecture) {
  constexpr int64_t kMostTokens = 512, kMostBytes = int64_t{2} << 30;
  const int64_t bytes_of_each = RecordedBytes(architecture, /*tokens=*/1, /*length=*/0);
  return std::clamp<int64_t>(kMostBytes / bytes_of_each, 1, kMostTokens);
}

absl::StatusOr<std::unique_ptr<NeuronRun>> GradientRun::Start(
    const model::Transformer& transformer, std::span<const NeuronRequest> requests,
    std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory) {
  requests = SharingAPass(requests, TokensOfARecordedPass(transformer.architecture()));
  VS_ASSIGN_OR_RETURN(auto lease, memory.Take(BytesOf(requests, transformer)));
  return std::unique_ptr<NeuronRun>(
      new GradientRun(transformer, requests, std::move(weights), std::move(lease)));
}

GradientRun::GradientRun(const model::Transformer& transformer,
                         std::span<const NeuronRequest> requests,
                         std::shared_ptr<const model::GradientWeights> weights,
                         std::shared_ptr<MemoryLedger::Lease> lease)
    : transformer_(transformer),
      requests_(requests),
      weights_(std::move(weights)),
      lease_(std::move(lease)) {
  for (const NeuronRequest& request : requests_) {
    auto places = PlacesOf(request);
    VS_CHECK(places.ok());
    places_.push_back(*std::move(places));
    sequences_.ids.push_back(IdsOf(request));
  }
}

at::Tensor GradientRun::TargetsOf(const at::Tensor& logits, const at::Tensor& residual) const {
  const bool reads_logits = ReadsLogits(requests_[0]);
  std::vector<at::Tensor> targets;
  int64_t logit = 0, token = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    const auto read = static_cast<int64_t>(places_[i].read.size());
    const auto length = static_cast<int64_t>(sequences_.ids[i].size());
    const at::Tensor own =
        reads_logits ? logits.narrow(0, logit, read)
                     : residual.narrow(0, token, length)
                           .index_select(0, OnDevice(places_[i].read, transformer_.device()))
                           .to(at::kFloat);
    targets.push_back(TargetPart(requests_[i], read, own.unsqueeze(0)));
    logit += read;
    token += length;
  }
  return at::cat(targets).sum();
}

at::Tensor GradientRun::RunStep(model::StepProgram& program, model::GradientTape& tape) const {
  // A projection needs no logits, but a step has some.
  std::vector<std::vector<int64_t>> wanted;
  for (size_t i = 0; i < requests_.size(); ++i) {
    wanted.push_back(ReadsLogits(requests_[i]) ? places_[i].read : std::vector<int64_t>{0});
  }
  auto cache = model::KvCache::Allocate(transformer_.architecture(), sequences_.cache_blocks(),
                                        kBlockTokens, transformer_.dtype(), transformer_.device());
  if (!cache.ok()) throw std::bad_alloc();
  return transformer_.Forward(sequences_.Batch(wanted, transformer_.device()), *cache, program,
                              &tape);
}

model::Wire GradientRun::WireOf(int layer) const {
  const bool is_normed = transformer_.architecture().post_norms;
  return {is_normed ? Site::kResidualPost : Site::kMlpNeurons, layer};
}

at::Tensor GradientRun::ByNeurons(int layer, const at::Tensor& neurons,
                                  const at::Tensor& gradients) const {
  if (WireOf(layer).site == Site::kMlpNeurons) return gradients.to(at::kFloat);
  const c10::NoGradGuard not_followed;
  return transformer_.NeuronGradients(layer, neurons.to(model::ScalarTypeOf(transformer_.dtype())),
                                      gradients, *weights_);
}

void GradientRun::Advance() {
  const c10::AutoGradMode gradients_follow(true);
  const model::Architecture& a = transformer_.architecture();
  const c10::Device device = transformer_.device();
  const std::vector<int>& layers = requests_[0].layers;
  std::vector<int64_t> asked, counts;  // asked: of the step's tokens
  int64_t tokens = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    for (const int64_t position : places_[i].asked) asked.push_back(tokens + position);
    counts.push_back(static_cast<int64_t>(places_[i].asked.size()));
    tokens += static_cast<int64_t>(sequences_.ids[i].size());
  }

  model::StepProgram program(static_cast<size_t>(NumWires(a)));
  model::GradientTape tape{.weights = weights_};
  std::vector<at::Tensor> neurons;
  for (const int layer : layers) {
    neurons.push_back(Keep({Site::kMlpNeurons, layer}, 0, tokens, a, device, program));
    tape.wires.push_back(WireIndex(WireOf(layer), a));
  }
  if (const auto* projection = std::get_if<ProjectionTarget>(&requests_[0].target)) {
    tape.wires.push_back(WireIndex({Site::kResidualPost, projection->layer}, a));
  }
  const at::Tensor logits = RunStep(program, tape);
  const auto blocks = static_cast<std::ptrdiff_t>(layers.size());
  const std::vector<at::Tensor> gradients = model::GradientsOf(
      TargetsOf(logits, tape.values.back()), {tape.values.begin(), tape.values.begin() + blocks});

  const at::Tensor at_tokens = OnDevice(asked, device);
  results_.resize(requests_.size());
  for (size_t block = 0; block < layers.size(); ++block) {
    const at::Tensor own = neurons[block].index_select(0, at_tokens);
    const std::vector<GradientSums> sums = GradientSumsOf(
        own, ByNeurons(layers[block], own, gradients[block].index_select(0, at_tokens)), counts);
    for (size_t i = 0; i < sums.size(); ++i) Append(sums[i], results_[i]);
  }
}

}  // namespace valuescope::engine
