#include "engine/path_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <variant>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/clean_pass.h"
#include "model/device_types.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

using model::Site;

constexpr int kFirstSteps = 4;
constexpr int64_t kBlockTokens = SequenceCopies::kBlockTokens;

const PathNodes& PathOf(const NeuronRequest& request) {
  return *std::get<GradientQuestion>(request.question).path;
}

// With as many copies as run together.
Restart RestartWithCopies(const NeuronRequest& request, const model::Architecture& architecture) {
  Restart restart = RestartOf(request, architecture);
  restart.copies.count =
      std::max<int64_t>(1, TokensOfARecordedPass(architecture) / restart.copies.length());
  return restart;
}

// The midpoints of `steps` parts of 0 .. 1. With `thirds` without those of a third as many parts,
// which are among them.
std::vector<double> Midpoints(int steps, bool thirds) {
  std::vector<double> nodes;
  for (int k = 0; k < steps; ++k) {
    if (!thirds || k % 3 != 1) nodes.push_back((k + .5) / steps);
  }
  return nodes;
}

// |a - b| / |a|.
double Change(std::span<const float> a, std::span<const float> b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{a[i]} * a[i];
  }
  return difference == 0 ? 0 : std::sqrt(difference / size);
}

// Of the device that a run takes at most, weights left out.
int64_t BytesOf(const NeuronRequest& request, const model::Transformer& transformer) {
  const model::Architecture& a = transformer.architecture();
  const Restart restart = RestartWithCopies(request, a);
  const SequenceCopies& copies = restart.copies;
  const int64_t length = copies.shared_blocks() * kBlockTokens + copies.own_blocks() * kBlockTokens;
  const auto layers = static_cast<int64_t>(request.layers.size());
  const int64_t clean = (layers * (2 * a.hidden + a.intermediate) + a.hidden) * copies.length();
  // The whole sequence runs once without being recorded.
  const int64_t tokens = std::max(copies.count * copies.length(), copies.end);
  return static_cast<int64_t>(sizeof(float)) * clean + RecordedBytes(a, tokens, length) +
         copies.cache_blocks() *
             model::KvCache::BytesPerBlock(a, kBlockTokens, transformer.dtype());
}

}  // namespace

absl::Status PathRun::Check(const PathNodes& path) {
  if (path.steps < 0 || path.steps > kMostGradientSteps) {
    return OutOfRange("question.steps", path.steps, 0, kMostGradientSteps);
  }
  if (path.steps > 0) return absl::OkStatus();
  if (!(path.tolerance > 0 && path.tolerance <= 1)) {
    return InvalidField("question.tolerance", "must be above 0 and at most 1", "OUT_OF_RANGE");
  }
  if (path.most < 3 * kFirstSteps || path.most > kMostGradientSteps) {
    return OutOfRange("question.most", path.most, 3 * kFirstSteps, kMostGradientSteps);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<NeuronRun>> PathRun::Start(
    const model::Transformer& transformer, const NeuronRequest& request,
    std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory) {
  VS_ASSIGN_OR_RETURN(auto lease, memory.Take(BytesOf(request, transformer)));
  return std::unique_ptr<NeuronRun>(
      new PathRun(transformer, request, std::move(weights), std::move(lease)));
}

PathRun::PathRun(const model::Transformer& transformer, const NeuronRequest& request,
                 std::shared_ptr<const model::GradientWeights> weights,
                 std::shared_ptr<MemoryLedger::Lease> lease)
    : transformer_(transformer),
      request_(request),
      path_(PathOf(request)),
      weights_(std::move(weights)),
      lease_(std::move(lease)),
      ids_(IdsOf(request)),
      restart_(RestartWithCopies(request, transformer.architecture())),
      asked_(OnDevice(restart_.AskedRows(), transformer.device())) {}

void PathRun::Advance() {
  if (clean_.empty()) return RunClean();
  RunNodes();
}

void PathRun::RunClean() {
  const c10::NoGradGuard not_followed;
  CleanPass pass(transformer_, restart_);
  for (const int layer : request_.layers) {
    clean_.push_back({.mid = pass.Keep(Site::kResidualMid, layer),
                      .written = pass.Keep(Site::kMlpOutput, layer),
                      .neurons = pass.Keep(Site::kMlpNeurons, layer)});
  }
  const at::Tensor read = pass.Keep(Site::kResidualPost, restart_.last);
  cache_ = pass.Run(ids_, request_.layers.front() + 1);
  full_ = TargetsOf(read.to(model::ScalarTypeOf(transformer_.dtype())), nullptr).item<double>();
  BeginBlock(0);
}

void PathRun::BeginBlock(size_t block) {
  along_.block = block;
  along_.steps = path_.steps > 0 ? path_.steps : kFirstSteps;
  along_.nodes = Midpoints(along_.steps, /*thirds=*/false);
  along_.nodes.insert(along_.nodes.begin(), 0);  // for the effect alone
  along_.gradient = at::zeros({asked_.numel(), transformer_.architecture().hidden},
                              at::TensorOptions().dtype(at::kDouble).device(transformer_.device()));
  along_.scores.clear();
}

at::Tensor PathRun::Scaled(int64_t copies) const {
  const Clean& clean = clean_[along_.block];
  // What the neurons do not write, a bias, stays.
  const at::Tensor bias = transformer_.NeuronBias(request_.layers[along_.block]);
  const at::Tensor base = bias.defined() ? clean.mid + bias : clean.mid;
  const at::Tensor scaled = bias.defined() ? clean.written - bias : clean.written;
  std::vector<at::Tensor> parts;
  for (int64_t copy = 0; copy < copies; ++copy) {
    at::Tensor fractions = at::ones({base.size(0), 1}, base.options());
    fractions.index_fill_(0, asked_, along_.nodes[static_cast<size_t>(copy)]);
    parts.push_back(base + fractions * scaled);
  }
  return at::cat(parts).to(model::ScalarTypeOf(transformer_.dtype()));
}

at::Tensor PathRun::TargetsOf(const at::Tensor& x, model::GradientTape* tape) const {
  const int64_t positions = restart_.copies.length();
  at::Tensor read = x.view({-1, positions, x.size(1)})
                        .index_select(1, OnDevice(restart_.reread, transformer_.device()));
  if (ReadsLogits(request_)) {
    const int64_t copies = read.size(0);
    read = transformer_.Logits(read.reshape({-1, x.size(1)}), tape)
               .view({copies, -1, transformer_.architecture().vocabulary});
  }
  return TargetPart(request_, static_cast<int64_t>(restart_.places.read.size()),
                    read.to(at::kFloat));
}

void PathRun::RunNodes() {
  const c10::AutoGradMode gradients_follow(true);
  SequenceCopies copies = restart_.copies;
  copies.count = std::min<int64_t>(copies.count, along_.nodes.size());
  const at::Tensor output = Scaled(copies.count).requires_grad_();
  model::GradientTape tape{.weights = weights_};
  const at::Tensor x =
      transformer_.RunBlocks(request_.layers[along_.block] + 1, restart_.last, output,
                             BatchOf(copies, ids_, {}, transformer_.device()), cache_, &tape);
  const at::Tensor targets = TargetsOf(x, &tape);
  const at::Tensor gradients = model::GradientsOf(targets.sum(), {output})[0]
                                   .view({copies.count, copies.length(), -1})
                                   .index_select(1, asked_)
                                   .to(at::kDouble);
  for (int64_t copy = 0; copy < copies.count; ++copy) {
    if (along_.nodes[static_cast<size_t>(copy)] == 0) {
      along_.empty = targets[copy].item<double>();
    } else {
      along_.gradient.add_(gradients[copy]);
    }
  }
  along_.nodes.erase(along_.nodes.begin(), along_.nodes.begin() + copies.count);
  if (along_.nodes.empty()) EndRule();
}

void PathRun::EndRule() {
  const int64_t counts[] = {asked_.numel()};
  const at::Tensor neurons = clean_[along_.block].neurons.index_select(0, asked_);
  const at::Tensor gradients = transformer_.NeuronGradients(
      request_.layers[along_.block], neurons.to(model::ScalarTypeOf(transformer_.dtype())),
      (along_.gradient / along_.steps).to(at::kFloat), *weights_);
  const GradientSums sums = GradientSumsOf(neurons, gradients, counts)[0];
  const bool goes_on =
      path_.steps == 0 && 3 * along_.steps <= path_.most &&
      (along_.scores.empty() || Change(sums.attributions, along_.scores) > path_.tolerance);
  if (goes_on) {
    along_.scores = sums.attributions;
    along_.steps *= 3;
    along_.nodes = Midpoints(along_.steps, /*thirds=*/true);
    return;
  }
  Append(sums, result_);
  result_.effects.push_back(full_ - along_.empty);
  if (along_.block + 1 < request_.layers.size()) return BeginBlock(along_.block + 1);
  done_ = true;
}

}  // namespace valuescope::engine
