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
  tap.tokens = {.kind = engine::TokenKind::kResponse, .positions = {}};
  tap.reduction = engine::Reduction::kMean;
  request.taps = {std::move(tap)};
  return request;
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
  const int64_t rows = model::IsPerLayer(plan.site) ? static_cast<int64_t>(plan.layers.size()) : 1;
  const int64_t size = rows * model::WidthOf(plan.site, engine.architecture());
  Means means;
  for (engine::Completion& completion : completions) {
    if (completion.captures.size() != 1 || completion.captures[0].tensor.NumElements() != size) {
      return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_SHAPE",
                             "the engine returned a capture of another shape than asked for");
    }
    VS_ASSIGN_OR_RETURN(means.rows.emplace_back(), ToFloat32(completion.captures[0].tensor));
    completion.captures.clear();  // not twice in memory
    means.cached_tokens += completion.cached_prompt_tokens;
  }
  return means;
}

}  // namespace valuescope::studies
