#include "studies/response_means.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"

namespace valuescope::studies {
namespace {

engine::Request RequestOf(const LabelledResponse& response, const ResponseMeansPlan& plan) {
  engine::Request request;
  request.tenant = plan.tenant;
  request.prompt = response.prompt;
  request.given_response = response.response;
  request.prepared = plan.interventions;
  request.background = plan.background;
  engine::Tap tap;
  tap.site = plan.site;
  tap.layers = plan.layers;
  tap.tokens = {.kind = plan.tokens, .positions = {}};
  tap.reduction = plan.reduction;
  request.taps = {tap};
  if (plan.token_norms) {
    tap.reduction = engine::Reduction::kMeanNorm;
    request.taps.push_back(std::move(tap));
  }
  return request;
}

absl::StatusOr<std::vector<float>> NumbersOf(const engine::Completion& completion,
                                             const ResponseMeansPlan& plan, int64_t size) {
  std::vector<float> numbers;
  for (const engine::Capture& capture : completion.captures) {
    VS_ASSIGN_OR_RETURN(const std::vector<float> part, ToFloat32(capture.tensor));
    numbers.insert(numbers.end(), part.begin(), part.end());
  }
  if (completion.captures.size() == (plan.token_norms ? 2u : 1u) &&
      static_cast<int64_t>(numbers.size()) == size) {
    return numbers;
  }
  return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_SHAPE",
                         "the engine returned a capture of another shape than asked for");
}

}  // namespace

absl::Status CheckResponses(const engine::Engine& engine,
                            std::span<const LabelledResponse> responses,
                            const ResponseMeansPlan& plan, const Cancellation& cancellation) {
  // What an engine says of a request depends on how many tokens it has, once they are tokens of the
  // model.
  std::set<std::pair<size_t, size_t>> checked;
  for (size_t i = 0; i < responses.size(); ++i) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    const LabelledResponse& response = responses[i];
    if (!checked.emplace(response.prompt.size(), response.response.size()).second) continue;
    const absl::Status status = engine.Check(RequestOf(response, plan));
    if (status.ok()) continue;
    // Interventions are the whole request's.
    if (DetailsOf(status).field.rfind("interventions", 0) == 0) return status;
    return InField(absl::StrCat("responses[", i, "]"), status);
  }
  return absl::OkStatus();
}

MeansShape ShapeOf(const ResponseMeansPlan& plan, const model::Architecture& architecture) {
  return {.rows = model::IsPerLayer(plan.site) ? static_cast<int64_t>(plan.layers.size()) : 1,
          .width = model::WidthOf(plan.site, architecture),
          .token_norms = plan.token_norms};
}

absl::StatusOr<Means> ResponseMeans(engine::Engine& engine,
                                    std::span<const LabelledResponse> responses,
                                    const ResponseMeansPlan& plan,
                                    const Cancellation& cancellation) {
  std::vector<engine::Request> requests;
  for (const LabelledResponse& response : responses) {
    requests.push_back(RequestOf(response, plan));
  }
  VS_ASSIGN_OR_RETURN(std::vector<engine::Completion> completions,
                      engine::RunAll(engine, std::move(requests), cancellation));
  const int64_t size = ShapeOf(plan, engine.architecture()).elements();
  Means means;
  for (engine::Completion& completion : completions) {
    VS_ASSIGN_OR_RETURN(means.rows.emplace_back(), NumbersOf(completion, plan, size));
    completion.captures.clear();  // not twice in memory
    means.cached_tokens += completion.cached_prompt_tokens;
  }
  return means;
}

}  // namespace valuescope::studies
