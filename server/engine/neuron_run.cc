#include "engine/neuron_run.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "engine/ablation_run.h"
#include "engine/gradient_run.h"
#include "engine/logprob_run.h"
#include "engine/neuron_target.h"
#include "engine/path_run.h"
#include "model/site.h"

namespace valuescope::engine {
namespace {

using model::Site;

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

absl::Status CheckTarget(const NeuronRequest& request, const model::Architecture& architecture) {
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

absl::Status CheckAblation(const NeuronRequest& request, const model::Architecture& a) {
  const auto* question = std::get_if<AblationQuestion>(&request.question);
  if (question == nullptr) return absl::OkStatus();
  const size_t layers = request.layers.size();
  if (!question->neurons.empty() && question->neurons.size() != layers) {
    return InvalidField("question.neurons", absl::StrCat("must be of ", layers, " layers"));
  }
  const auto is_empty = [](const NeuronIndices& of_layer) { return of_layer.values().empty(); };
  if (!question->neurons.empty() &&
      std::all_of(question->neurons.begin(), question->neurons.end(), is_empty)) {
    return InvalidField("question.neurons", "must hold a neuron");
  }
  for (size_t block = 0; block < question->neurons.size(); ++block) {
    const std::vector<int64_t>& neurons = question->neurons[block].values();
    const auto outside = [&](int64_t neuron) { return neuron < 0 || neuron >= a.intermediate; };
    const auto found = std::find_if(neurons.begin(), neurons.end(), outside);
    if (found == neurons.end()) continue;
    return OutOfRange(absl::StrCat("question.neurons[", block, "]"), static_cast<double>(*found), 0,
                      static_cast<double>(a.intermediate - 1));
  }
  const size_t elements = layers * static_cast<size_t>(a.intermediate);
  if (question->base == nullptr || question->base->size() == elements) return absl::OkStatus();
  return InvalidField("question.base", absl::StrCat("must have ", elements, " elements"));
}

absl::Status CheckPlaces(const NeuronRequest& request) {
  VS_ASSIGN_OR_RETURN(const NeuronPlaces places, PlacesOf(request));
  if (!places.asked.empty() && places.asked.front() <= places.read.back()) return absl::OkStatus();
  return InvalidField("tokens",
                      "must hold a token at or before the last one that the target is read at, "
                      "beside the sequence's first, which is left out unless it is named",
                      "READS_NOTHING");
}

}  // namespace

absl::Status CheckNeuronRequest(const NeuronRequest& request,
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
  const auto* gradient = std::get_if<GradientQuestion>(&request.question);
  if (gradient != nullptr && gradient->path) VS_RETURN_IF_ERROR(PathRun::Check(*gradient->path));
  VS_RETURN_IF_ERROR(CheckAblation(request, architecture));
  if (!std::holds_alternative<LogprobQuestion>(request.question)) return CheckPlaces(request);
  if (std::holds_alternative<ResponseLogprobTarget>(request.target)) return absl::OkStatus();
  return InvalidField("target", "must be the log-probability of the response");
}

std::optional<model::GradientPath> GradientPathOf(const NeuronRequest& request) {
  if (!std::holds_alternative<GradientQuestion>(request.question)) return std::nullopt;
  model::GradientPath path{.from = {Site::kMlpNeurons, request.layers.front()}};
  if (const auto* projection = std::get_if<ProjectionTarget>(&request.target)) {
    path.to = {Site::kResidualPost, projection->layer};
  }
  return path;
}

absl::StatusOr<std::unique_ptr<NeuronRun>> StartNeuronRun(
    const model::Transformer& transformer, std::span<const NeuronRequest> requests,
    std::shared_ptr<const model::GradientWeights> weights, MemoryLedger& memory) {
  const NeuronRequest& request = requests[0];
  if (std::holds_alternative<AblationQuestion>(request.question)) {
    return AblationRun::Start(transformer, request, memory);
  }
  if (std::holds_alternative<LogprobQuestion>(request.question)) {
    return LogprobRun::Start(transformer, request, memory);
  }
  if (std::get<GradientQuestion>(request.question).path) {
    return PathRun::Start(transformer, request, std::move(weights), memory);
  }
  return GradientRun::Start(transformer, requests, std::move(weights), memory);
}

}  // namespace valuescope::engine
