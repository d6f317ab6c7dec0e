#include "engine/gradient_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/sequence_copies.h"
#include "model/device_types.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

using model::Site;

// Of a pass along a path, so that those who wait for the engine do not wait long.
constexpr int64_t kMostTokens = 256;
constexpr int kFirstSteps = 4;

const std::optional<PathNodes>& PathOf(const NeuronRequest& request) {
  return std::get<GradientQuestion>(request.question).path;
}

int64_t CopiesOf(const NeuronRequest& request) {
  return PathOf(request) ? std::max<int64_t>(1, kMostTokens / LengthOf(request)) : 1;
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
int64_t BytesOf(const NeuronRequest& request, const model::Architecture& a) {
  constexpr int64_t kBlockTokens = SequenceCopies::kBlockTokens;
  const int64_t length = LengthOf(request), tokens = CopiesOf(request) * length;
  const int64_t blocks = (length + kBlockTokens - 1) / kBlockTokens;
  const int64_t heads = a.num_heads * a.head_dim, keys = a.num_kv_heads * a.head_dim;
  // What the nodes of a block keep, and what the derivative of the largest one makes on its way.
  const int64_t kept = 8 * a.hidden + 4 * (heads + 2 * keys) + 2 * heads + 2 * a.intermediate;
  const int64_t attention = blocks * kBlockTokens * (6 * keys + 6 * a.num_heads);
  const int64_t logits = 6 * a.vocabulary;
  const int64_t clean = request.layers.size() * (2 * a.hidden + a.intermediate) * length;
  const int64_t cache = 4 * a.num_layers * tokens / length * blocks * kBlockTokens * keys;
  return static_cast<int64_t>(sizeof(float)) *
         (tokens * (a.num_layers * kept + attention + logits + 8 * a.intermediate) + clean + cache);
}

}  // namespace

absl::Status GradientRun::Check(const GradientQuestion& question) {
  if (!question.path) return absl::OkStatus();
  const PathNodes& path = *question.path;
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

absl::StatusOr<std::unique_ptr<NeuronRun>> GradientRun::Start(
    const model::Transformer& transformer, const NeuronRequest& request,
    std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory) {
  VS_ASSIGN_OR_RETURN(auto lease, memory.Take(BytesOf(request, transformer.architecture())));
  return std::unique_ptr<NeuronRun>(
      new GradientRun(transformer, request, std::move(weights), std::move(lease)));
}

GradientRun::GradientRun(const model::Transformer& transformer, const NeuronRequest& request,
                         std::shared_ptr<const model::GradientWeights> weights,
                         std::shared_ptr<MemoryLedger::Lease> lease)
    : transformer_(transformer),
      request_(request),
      path_(PathOf(request)),
      weights_(std::move(weights)),
      lease_(std::move(lease)),
      ids_(IdsOf(request)) {
  auto places = PlacesOf(request);
  VS_CHECK(places.ok());
  places_ = *std::move(places);
}

void GradientRun::Advance() {
  const c10::AutoGradMode gradients(true);
  if (clean_.empty()) return RunClean();
  RunNodes();
}

at::Tensor GradientRun::Placed(std::span<const int64_t> positions) const {
  return OnDevice(positions, transformer_.device());
}

at::Tensor GradientRun::Forward(int64_t copies, const model::StepProgram& program,
                                model::GradientTape* tape) {
  const SequenceCopies all{.count = copies, .end = static_cast<int64_t>(ids_.size())};
  auto cache = model::KvCache::Allocate(transformer_.architecture(), all.cache_blocks(),
                                        SequenceCopies::kBlockTokens, transformer_.dtype(),
                                        transformer_.device());
  if (!cache.ok()) throw std::bad_alloc();
  // A projection needs none, but a step has some.
  const std::vector<int64_t> wanted =
      ReadsLogits(request_) ? places_.read : std::vector<int64_t>{all.end - 1};
  return transformer_.Forward(BatchOf(all, ids_, wanted, transformer_.device()), *cache, program,
                              tape);
}

at::Tensor GradientRun::TargetsOf(int64_t copies, const at::Tensor& logits,
                                  const at::Tensor& residual) const {
  if (ReadsLogits(request_)) return TargetOf(request_, logits.view({copies, -1, logits.size(1)}));
  return TargetOf(request_, residual.view({copies, -1, residual.size(1)})
                                .index_select(1, Placed(places_.read))
                                .to(at::kFloat));
}

GradientRun::Sums GradientRun::SumsOf(size_t block, const at::Tensor& gradient) const {
  const c10::NoGradGuard not_followed;
  const at::Tensor neurons = clean_[block].neurons.index_select(0, Placed(places_.asked));
  const at::Tensor by_neurons = transformer_.NeuronGradients(
      request_.layers[block], neurons.to(model::ScalarTypeOf(transformer_.dtype())), gradient,
      *weights_);
  return {.attributions = Numbers((neurons * by_neurons).sum(0, false, at::kDouble)),
          .gradients = Numbers(by_neurons.sum(0, false, at::kDouble))};
}

void GradientRun::Put(size_t block, const Sums& sums) {
  VS_CHECK(result_.scores.size() == block * sums.attributions.size());
  result_.scores.insert(result_.scores.end(), sums.attributions.begin(), sums.attributions.end());
  result_.gradients.insert(result_.gradients.end(), sums.gradients.begin(), sums.gradients.end());
}

void GradientRun::RunClean() {
  const model::Architecture& a = transformer_.architecture();
  const auto length = static_cast<int64_t>(ids_.size());
  model::StepProgram program(static_cast<size_t>(NumWires(a)));
  const auto keep = [&](Site site, int layer) {
    return Keep({site, layer}, 0, length, a, transformer_.device(), program);
  };
  std::vector<Clean> clean;
  model::GradientTape tape{.weights = weights_};
  for (const int layer : request_.layers) {
    Clean& own = clean.emplace_back();
    own.neurons = keep(Site::kMlpNeurons, layer);
    if (path_) {
      own.mid = keep(Site::kResidualMid, layer);
      own.written = keep(Site::kMlpOutput, layer);
    }
    tape.wires.push_back(WireIndex({Site::kResidualPost, layer}, a));
  }
  const auto* projection = std::get_if<ProjectionTarget>(&request_.target);
  if (projection != nullptr) {
    tape.wires.push_back(WireIndex({Site::kResidualPost, projection->layer}, a));
  }
  const at::Tensor logits = Forward(1, program, &tape);
  const at::Tensor target = TargetsOf(1, logits, tape.values.back());
  clean_ = std::move(clean);
  if (path_) {
    along_.full = target.item<double>();
    return BeginBlock(0);
  }
  const std::vector<at::Tensor> by(
      tape.values.begin(),
      tape.values.begin() + static_cast<std::ptrdiff_t>(request_.layers.size()));
  const std::vector<at::Tensor> gradients = model::GradientsOf(target.sum(), by);
  for (size_t block = 0; block < gradients.size(); ++block) {
    Put(block, SumsOf(block, gradients[block].index_select(0, Placed(places_.asked))));
  }
  done_ = true;
}

void GradientRun::BeginBlock(size_t block) {
  along_.block = block;
  along_.steps = path_->steps > 0 ? path_->steps : kFirstSteps;
  along_.nodes = Midpoints(along_.steps, /*thirds=*/false);
  along_.nodes.insert(along_.nodes.begin(), 0);  // for the effect alone
  along_.gradient =
      at::zeros({static_cast<int64_t>(places_.asked.size()), transformer_.architecture().hidden},
                at::TensorOptions().dtype(at::kDouble).device(transformer_.device()));
  along_.scores.clear();
}

void GradientRun::RunNodes() {
  const int layer = request_.layers[along_.block];
  const Clean& clean = clean_[along_.block];
  const auto length = static_cast<int64_t>(ids_.size());
  const auto copies = std::min<int64_t>(CopiesOf(request_), along_.nodes.size());
  // What the neurons do not write, a bias, stays.
  const at::Tensor bias = transformer_.NeuronBias(layer);
  const at::Tensor base = bias.defined() ? clean.mid + bias : clean.mid;
  const at::Tensor scaled = bias.defined() ? clean.written - bias : clean.written;
  const at::Tensor at_tokens = Placed(places_.asked);
  std::vector<at::Tensor> parts;
  for (int64_t copy = 0; copy < copies; ++copy) {
    at::Tensor fractions = at::ones({length, 1}, base.options());
    fractions.index_fill_(0, at_tokens, along_.nodes[static_cast<size_t>(copy)]);
    parts.push_back(base + fractions * scaled);
  }
  const at::Tensor output =
      at::cat(parts).to(model::ScalarTypeOf(transformer_.dtype())).requires_grad_();
  model::GradientTape tape{.weights = weights_, .behind = layer, .output = output};
  const auto* projection = std::get_if<ProjectionTarget>(&request_.target);
  const bool is_read = projection != nullptr && projection->layer > layer;
  if (is_read) {
    tape.wires.push_back(
        WireIndex({Site::kResidualPost, projection->layer}, transformer_.architecture()));
  }
  const model::StepProgram program(static_cast<size_t>(NumWires(transformer_.architecture())));
  const at::Tensor logits = Forward(copies, program, &tape);
  const at::Tensor targets = TargetsOf(copies, logits, is_read ? tape.values[0] : output);
  const at::Tensor gradients = model::GradientsOf(targets.sum(), {output})[0]
                                   .view({copies, length, -1})
                                   .index_select(1, at_tokens)
                                   .to(at::kDouble);
  for (int64_t copy = 0; copy < copies; ++copy) {
    if (along_.nodes[static_cast<size_t>(copy)] == 0) {
      along_.empty = targets[copy].item<double>();
    } else {
      along_.gradient.add_(gradients[copy]);
    }
  }
  along_.nodes.erase(along_.nodes.begin(), along_.nodes.begin() + copies);
  if (along_.nodes.empty()) EndRule();
}

void GradientRun::EndRule() {
  const Sums sums = SumsOf(along_.block, (along_.gradient / along_.steps).to(at::kFloat));
  const PathNodes& path = *path_;
  const bool goes_on =
      path.steps == 0 && 3 * along_.steps <= path.most &&
      (along_.scores.empty() || Change(sums.attributions, along_.scores) > path.tolerance);
  if (goes_on) {
    along_.scores = sums.attributions;
    along_.steps *= 3;
    along_.nodes = Midpoints(along_.steps, /*thirds=*/true);
    return;
  }
  Put(along_.block, sums);
  result_.effects.push_back(along_.full - along_.empty);
  if (along_.block + 1 < request_.layers.size()) return BeginBlock(along_.block + 1);
  done_ = true;
}

}  // namespace valuescope::engine
