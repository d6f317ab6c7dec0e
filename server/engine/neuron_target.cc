#include "engine/neuron_target.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <utility>
#include <variant>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/logit_row.h"
#include "engine/token_scope.h"

namespace valuescope::engine {
namespace {

absl::StatusOr<std::vector<int64_t>> PositionsOf(const TokenSelection& tokens,
                                                 const NeuronRequest& request) {
  const SequenceExtent extent{.prompt = static_cast<int64_t>(request.prompt.size()),
                              .most = LengthOf(request),
                              .generates = false};
  VS_ASSIGN_OR_RETURN(const TokenScope scope,
                      TokenScope::Resolve(tokens, extent, /*for_tap=*/true));
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

absl::StatusOr<std::vector<int64_t>> AskedPositions(const NeuronRequest& request) {
  VS_ASSIGN_OR_RETURN(std::vector<int64_t> positions, PositionsOf(request.tokens, request));
  if (!positions.empty() && positions.front() == 0 && !NamesFirst(request.tokens)) {
    positions.erase(positions.begin());
  }
  return positions;
}

absl::StatusOr<std::vector<int64_t>> ReadPositions(const NeuronRequest& request) {
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

// What a target that is linear in what it reads, [..., width], makes of a position: [...].
at::Tensor LinearTarget(const NeuronRequest& request, const at::Tensor& read) {
  if (const auto* projection = std::get_if<ProjectionTarget>(&request.target)) {
    return at::matmul(read, at::tensor(*projection->vector, at::kFloat).to(read.device()));
  }
  const auto& difference = std::get<LogitDifferenceTarget>(request.target);
  const auto mean = [&](const std::vector<int32_t>& ids) {
    const std::vector<int64_t> wide(ids.begin(), ids.end());
    return read.index_select(-1, OnDevice(wide, read.device())).mean(-1);
  };
  const at::Tensor positive = mean(difference.positive);
  return difference.negative.empty() ? positive : positive - mean(difference.negative);
}

// log sum exp(logits + factor_i changes_i): [n] float64, shapes as LogprobChanges has them.
at::Tensor LogSumsExp(const at::Tensor& logits, const at::Tensor& changes,
                      const at::Tensor& factors) {
  if (!changes.is_cpu()) {
    return at::addcmul(logits, changes, factors.unsqueeze(1)).logsumexp(1).to(at::kDouble);
  }
  const auto width = static_cast<size_t>(logits.numel());
  const int64_t count = changes.size(0), stride = changes.stride(0);
  const at::Tensor sums = at::empty({count}, at::kDouble);
  const float *own = logits.const_data_ptr<float>(), *rows = changes.const_data_ptr<float>();
  const at::Tensor along = factors.contiguous();
  const auto* factor = along.const_data_ptr<float>();
  auto* out = sums.mutable_data_ptr<double>();
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      out[i] = LogSumExp({own, width}, {rows + i * stride, width}, factor[i]);
    }
  });
  return sums;
}

}  // namespace

absl::StatusOr<NeuronPlaces> PlacesOf(const NeuronRequest& request) {
  auto asked = AskedPositions(request);
  if (!asked.ok()) return InField("tokens", asked.status());
  auto read = ReadPositions(request);
  if (!read.ok()) return InField("target.tokens", read.status());
  return NeuronPlaces{.asked = *std::move(asked), .read = *std::move(read)};
}

int64_t LengthOf(const NeuronRequest& request) {
  return static_cast<int64_t>(request.prompt.size() + request.response.size());
}

std::vector<int64_t> IdsOf(const NeuronRequest& request) {
  std::vector<int64_t> ids(request.prompt.begin(), request.prompt.end());
  ids.insert(ids.end(), request.response.begin(), request.response.end());
  return ids;
}

bool ReadsLogits(const NeuronRequest& request) {
  return !std::holds_alternative<ProjectionTarget>(request.target);
}

at::Tensor TargetPart(const NeuronRequest& request, int64_t num_read, const at::Tensor& read) {
  if (!std::holds_alternative<ResponseLogprobTarget>(request.target)) {
    return LinearTarget(request, read).sum(1) / num_read;
  }
  const std::vector<int64_t> next(request.response.end() - read.size(1), request.response.end());
  const at::Tensor tokens = OnDevice(next, read.device()).view({1, -1, 1});
  return read.log_softmax(-1).gather(2, tokens.expand({read.size(0), -1, 1})).sum({1, 2});
}

at::Tensor TargetChanges(const NeuronRequest& request, int64_t num_read, const at::Tensor& clean,
                         const at::Tensor& read) {
  const at::Tensor changes = read - clean;
  if (!std::holds_alternative<ResponseLogprobTarget>(request.target)) {
    return LinearTarget(request, changes).sum(1, false, at::kDouble) / num_read;
  }
  const at::Tensor logs = clean.log_softmax(-1), one = at::ones({read.size(0)}, changes.options());
  at::Tensor total = at::zeros({read.size(0)}, changes.options().dtype(at::kDouble));
  const int64_t count = clean.size(0);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t next = request.response[request.response.size() - static_cast<size_t>(count - i)];
    total += LogprobChanges(logs[i], changes.select(1, i), one, next);
  }
  return total;
}

at::Tensor LogprobChanges(const at::Tensor& clean, const at::Tensor& changes,
                          const at::Tensor& factors, int64_t token) {
  // Of the clean ones too, because rounded probabilities do not sum to 1.
  return (factors * changes.select(1, token)).to(at::kDouble) -
         LogSumsExp(clean, changes, factors) +
         LogSumsExp(clean, changes.narrow(0, 0, 1), at::zeros({1}, factors.options()));
}

at::Tensor OnDevice(std::span<const int64_t> numbers, c10::Device device) {
  return at::tensor(std::vector<int64_t>(numbers.begin(), numbers.end()), at::kLong).to(device);
}

std::vector<float> Numbers(const at::Tensor& x) {
  const at::Tensor host = x.to(at::kCPU, at::kFloat).contiguous();
  const float* data = host.const_data_ptr<float>();
  return {data, data + host.numel()};
}

}  // namespace valuescope::engine
