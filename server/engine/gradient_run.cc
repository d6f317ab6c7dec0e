#include "engine/gradient_run.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/token_scope.h"
#include "model/device_types.h"
#include "model/site.h"
#include "model/step_scratch.h"

namespace valuescope::engine {
namespace {

using model::Site;

constexpr int64_t kBlockTokens = 16;  // of the cache that a pass has to itself
// Of a pass along a path, so that those who wait for the engine do not wait long.
constexpr int64_t kMostTokens = 256;
constexpr int kFirstSteps = 4;

int64_t LengthOf(const GradientRequest& request) {
  return static_cast<int64_t>(request.prompt.size() + request.response.size());
}

SequenceExtent ExtentOf(const GradientRequest& request) {
  return {.prompt = static_cast<int64_t>(request.prompt.size()),
          .most = LengthOf(request),
          .generates = false};
}

absl::StatusOr<std::vector<int64_t>> PositionsOf(const TokenSelection& tokens,
                                                 const GradientRequest& request) {
  VS_ASSIGN_OR_RETURN(const TokenScope scope,
                      TokenScope::Resolve(tokens, ExtentOf(request), /*for_tap=*/true));
  std::vector<int64_t> positions;
  for (int64_t position = 0; position < LengthOf(request); ++position) {
    if (scope.Contains(position)) positions.push_back(position);
  }
  return positions;
}

bool NamesFirst(const TokenSelection& tokens) {
  return tokens.kind == TokenKind::kPositions || tokens.kind == TokenKind::kLastPrompt ||
         tokens.kind == TokenKind::kLast;
}

absl::StatusOr<std::vector<int64_t>> AttributedPositions(const GradientRequest& request) {
  VS_ASSIGN_OR_RETURN(std::vector<int64_t> positions, PositionsOf(request.tokens, request));
  if (!positions.empty() && positions.front() == 0 && !NamesFirst(request.tokens)) {
    positions.erase(positions.begin());
  }
  return positions;
}

absl::StatusOr<std::vector<int64_t>> ReadPositions(const GradientRequest& request) {
  if (const auto* projection = std::get_if<ProjectionTarget>(&request.target)) {
    return PositionsOf(projection->tokens, request);
  }
  if (const auto* difference = std::get_if<LogitDifferenceTarget>(&request.target)) {
    return PositionsOf(difference->tokens, request);
  }
  std::vector<int64_t> positions;
  const auto first = static_cast<int64_t>(request.prompt.size()) - 1;
  for (int64_t position = first; position < LengthOf(request) - 1; ++position) {
    positions.push_back(position);
  }
  return positions;
}

absl::Status CheckIds(absl::string_view field, std::span<const int32_t> ids,
                      const model::Architecture& architecture) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= architecture.vocabulary) {
      return OutOfRange(absl::StrCat(field, "[", i, "]"), ids[i], 0,
                        static_cast<double>(architecture.vocabulary - 1));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTarget(const GradientRequest& request, const model::Architecture& architecture) {
  if (const auto* projection = std::get_if<ProjectionTarget>(&request.target)) {
    if (projection->layer < 0 || projection->layer >= architecture.num_layers) {
      return OutOfRange("target.layer", projection->layer, 0, architecture.num_layers - 1);
    }
    if (projection->vector == nullptr ||
        static_cast<int64_t>(projection->vector->size()) != architecture.hidden) {
      return InvalidField("target.vector",
                          absl::StrCat("must have ", architecture.hidden, " elements"));
    }
    if (request.layers.back() > projection->layer) {
      return InvalidField("layers",
                          absl::StrCat("names layer ", request.layers.back(), ", allowed are 0 to ",
                                       projection->layer, ", where the target is read"),
                          "OUT_OF_RANGE");
    }
  }
  if (const auto* difference = std::get_if<LogitDifferenceTarget>(&request.target)) {
    if (difference->positive.empty()) return InvalidField("target.positive", "must name a token");
    VS_RETURN_IF_ERROR(CheckIds("target.positive", difference->positive, architecture));
    VS_RETURN_IF_ERROR(CheckIds("target.negative", difference->negative, architecture));
  }
  return absl::OkStatus();
}

absl::Status CheckPath(const PathNodes& path) {
  if (path.steps < 0 || path.steps > kMostGradientSteps) {
    return OutOfRange("path.steps", path.steps, 0, kMostGradientSteps);
  }
  if (path.steps > 0) return absl::OkStatus();
  if (!(path.tolerance > 0 && path.tolerance <= 1)) {
    return InvalidField("path.tolerance", "must be above 0 and at most 1", "OUT_OF_RANGE");
  }
  if (path.most < 3 * kFirstSteps || path.most > kMostGradientSteps) {
    return OutOfRange("path.most", path.most, 3 * kFirstSteps, kMostGradientSteps);
  }
  return absl::OkStatus();
}

int64_t CopiesOf(const GradientRequest& request) {
  return request.path ? std::max<int64_t>(1, kMostTokens / LengthOf(request)) : 1;
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

std::vector<float> Numbers(const at::Tensor& x) {
  const at::Tensor host = x.to(at::kCPU, at::kFloat).contiguous();
  const float* data = host.const_data_ptr<float>();
  return {data, data + host.numel()};
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

}  // namespace

absl::Status CheckGradientRequest(const GradientRequest& request,
                                  const model::Architecture& architecture) {
  if (request.prompt.empty()) return InvalidField("prompt", "must have a token");
  if (request.response.empty()) return InvalidField("response", "must have a token");
  VS_RETURN_IF_ERROR(CheckIds("prompt", request.prompt, architecture));
  VS_RETURN_IF_ERROR(CheckIds("response", request.response, architecture));
  if (LengthOf(request) > architecture.max_positions) {
    return InvalidField("response", absl::StrCat("ends at ", LengthOf(request),
                                                 " tokens, the context of this model has ",
                                                 architecture.max_positions));
  }
  VS_RETURN_IF_ERROR(model::CheckLayers(Site::kMlpNeurons, request.layers, architecture));
  VS_RETURN_IF_ERROR(CheckTarget(request, architecture));
  if (request.path) VS_RETURN_IF_ERROR(CheckPath(*request.path));
  const auto attributed = AttributedPositions(request);
  if (!attributed.ok()) return InField("tokens", attributed.status());
  const auto read = ReadPositions(request);
  if (!read.ok()) return InField("target.tokens", read.status());
  if (!attributed->empty() && attributed->front() <= read->back()) return absl::OkStatus();
  return InvalidField("tokens",
                      "must hold a token at or before the last one that the target is read at, "
                      "beside the sequence's first, which is left out unless it is named",
                      "READS_NOTHING");
}

model::GradientPath GradientPathOf(const GradientRequest& request) {
  model::GradientPath path{.from = {Site::kMlpNeurons, request.layers.front()}};
  if (const auto* projection = std::get_if<ProjectionTarget>(&request.target)) {
    path.to = {Site::kResidualPost, projection->layer};
  }
  return path;
}

int64_t GradientRunBytes(const GradientRequest& request, const model::Architecture& a) {
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

GradientRun::GradientRun(const model::Transformer& transformer, const GradientRequest& request,
                         std::shared_ptr<const model::GradientWeights> weights)
    : transformer_(transformer), request_(request), weights_(std::move(weights)) {
  ids_.assign(request.prompt.begin(), request.prompt.end());
  ids_.insert(ids_.end(), request.response.begin(), request.response.end());
  auto attributed = AttributedPositions(request);
  auto read = ReadPositions(request);
  VS_CHECK(attributed.ok() && read.ok());
  attributed_ = *std::move(attributed);
  read_ = *std::move(read);
}

void GradientRun::Advance() {
  const c10::AutoGradMode gradients(true);
  if (clean_.empty()) return RunClean();
  RunNodes();
}

at::Tensor GradientRun::OnDevice(std::span<const int64_t> numbers) const {
  return at::tensor(std::vector<int64_t>(numbers.begin(), numbers.end()), at::kLong)
      .to(transformer_.device());
}

at::Tensor GradientRun::Forward(int64_t copies, const model::StepProgram& program,
                                model::GradientTape* tape) {
  const auto length = static_cast<int64_t>(ids_.size());
  const int64_t blocks = (length + kBlockTokens - 1) / kBlockTokens;
  const bool logits = !std::holds_alternative<ProjectionTarget>(request_.target);
  std::vector<int64_t> ids, positions, sequences, slots, wanted;
  for (int64_t copy = 0; copy < copies; ++copy) {
    for (int64_t position = 0; position < length; ++position) {
      ids.push_back(ids_[static_cast<size_t>(position)]);
      positions.push_back(position);
      sequences.push_back(copy);
      slots.push_back(copy * blocks * kBlockTokens + position);
    }
    // A projection needs none, but a step has some.
    if (!logits) wanted.push_back((copy + 1) * length - 1);
    for (const int64_t position : read_) {
      if (logits) wanted.push_back(copy * length + position);
    }
  }
  const at::TensorOptions options =
      at::TensorOptions().dtype(at::kLong).device(transformer_.device());
  auto cache = model::KvCache::Allocate(transformer_.architecture(), copies * blocks, kBlockTokens,
                                        transformer_.dtype(), transformer_.device());
  if (!cache.ok()) throw std::bad_alloc();
  return transformer_.Forward(
      {.token_ids = OnDevice(ids),
       .positions = OnDevice(positions),
       .sequences = OnDevice(sequences),
       .cache_slots = OnDevice(slots),
       .block_tables = at::arange(copies * blocks, options).view({copies, blocks}),
       .table_rows = at::zeros({copies * length}, options),
       .logit_tokens = OnDevice(wanted),
       .most_tokens = length},
      *cache, program, tape);
}

at::Tensor GradientRun::TargetOf(int64_t copies, const at::Tensor& logits,
                                 const at::Tensor& residual) const {
  const auto num_read = static_cast<int64_t>(read_.size());
  if (const auto* projection = std::get_if<ProjectionTarget>(&request_.target)) {
    const at::Tensor vector = at::tensor(*projection->vector, at::kFloat).to(residual.device());
    const at::Tensor rows = residual.view({copies, -1, residual.size(1)})
                                .index_select(1, OnDevice(read_))
                                .to(at::kFloat);
    return at::matmul(rows, vector).mean(1);
  }
  const at::Tensor own = logits.view({copies, num_read, -1});
  if (const auto* difference = std::get_if<LogitDifferenceTarget>(&request_.target)) {
    const auto mean = [&](const std::vector<int32_t>& ids) {
      const std::vector<int64_t> wide(ids.begin(), ids.end());
      return own.index_select(2, OnDevice(wide)).mean(2);
    };
    at::Tensor value = mean(difference->positive);
    if (!difference->negative.empty()) value = value - mean(difference->negative);
    return value.mean(1);
  }
  const at::Tensor next =
      OnDevice(std::span<const int64_t>(ids_).subspan(request_.prompt.size())).view({1, -1, 1});
  return own.log_softmax(-1).gather(2, next.expand({copies, num_read, 1})).sum({1, 2});
}

GradientRun::Sums GradientRun::SumsOf(size_t block, const at::Tensor& gradient) const {
  const c10::NoGradGuard not_followed;
  const at::Tensor neurons = clean_[block].neurons.index_select(0, OnDevice(attributed_));
  const at::Tensor by_neurons = transformer_.NeuronGradients(
      request_.layers[block], neurons.to(model::ScalarTypeOf(transformer_.dtype())), gradient,
      *weights_);
  return {.attributions = Numbers((neurons * by_neurons).sum(0, false, at::kDouble)),
          .gradients = Numbers(by_neurons.sum(0, false, at::kDouble))};
}

void GradientRun::Put(size_t block, const Sums& sums) {
  VS_CHECK(result_.attributions.size() == block * sums.attributions.size());
  result_.attributions.insert(result_.attributions.end(), sums.attributions.begin(),
                              sums.attributions.end());
  result_.gradients.insert(result_.gradients.end(), sums.gradients.begin(), sums.gradients.end());
}

void GradientRun::RunClean() {
  const model::Architecture& a = transformer_.architecture();
  const auto length = static_cast<int64_t>(ids_.size());
  const at::TensorOptions floats =
      at::TensorOptions().dtype(at::kFloat).device(transformer_.device());
  model::StepProgram program(static_cast<size_t>(NumWires(a)));
  const at::Tensor tokens =
      at::arange(length, at::TensorOptions().dtype(at::kLong).device(transformer_.device()));
  const auto keep = [&](Site site, int layer) {
    const at::Tensor kept = at::zeros({length, WidthOf(site, a)}, floats);
    program[static_cast<size_t>(WireIndex({site, layer}, a))].taps.push_back(
        {.operation = model::TapOperation::kCopy,
         .tokens = tokens,
         .rows = tokens,
         .destination = kept});
    return kept;
  };
  std::vector<Clean> clean;
  model::GradientTape tape{.weights = weights_};
  for (const int layer : request_.layers) {
    Clean& own = clean.emplace_back();
    own.neurons = keep(Site::kMlpNeurons, layer);
    if (request_.path) {
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
  const at::Tensor target = TargetOf(1, logits, tape.values.back());
  clean_ = std::move(clean);
  if (request_.path) {
    along_.full = target.item<double>();
    return BeginBlock(0);
  }
  const std::vector<at::Tensor> by(
      tape.values.begin(),
      tape.values.begin() + static_cast<std::ptrdiff_t>(request_.layers.size()));
  const std::vector<at::Tensor> gradients = model::GradientsOf(target.sum(), by);
  for (size_t block = 0; block < gradients.size(); ++block) {
    Put(block, SumsOf(block, gradients[block].index_select(0, OnDevice(attributed_))));
  }
  done_ = true;
}

void GradientRun::BeginBlock(size_t block) {
  along_.block = block;
  along_.steps = request_.path->steps > 0 ? request_.path->steps : kFirstSteps;
  along_.nodes = Midpoints(along_.steps, /*thirds=*/false);
  along_.nodes.insert(along_.nodes.begin(), 0);  // for the effect alone
  along_.gradient =
      at::zeros({static_cast<int64_t>(attributed_.size()), transformer_.architecture().hidden},
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
  const at::Tensor at_tokens = OnDevice(attributed_);
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
  const at::Tensor targets = TargetOf(copies, logits, is_read ? tape.values[0] : output);
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
  const PathNodes& path = *request_.path;
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
