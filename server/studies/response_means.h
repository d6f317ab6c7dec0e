// Mean activations of responses: one forward pass each, one tap that averages over the response's
// tokens on the device, or reads one token, and where they are wanted one that averages the norms
// of these tokens.
#ifndef VALUESCOPE_STUDIES_RESPONSE_MEANS_H_
#define VALUESCOPE_STUDIES_RESPONSE_MEANS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/cancellation.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "studies/labelled_responses.h"

namespace valuescope::studies {

struct ResponseMeansPlan {
  std::string tenant;
  model::Site site = model::Site::kResidualPost;
  std::vector<int> layers;  // ascending; empty at sites without layers
  // kResponse, kLast or kLastPrompt.
  engine::TokenKind tokens = engine::TokenKind::kResponse;
  engine::Reduction reduction = engine::Reduction::kMean;  // or kMeanPositive
  // Of all responses; null: none.
  std::shared_ptr<const engine::PreparedInterventions> interventions;
  bool background = false;   // gives way to requests that people wait for
  bool token_norms = false;  // means of |x| follow a(r); of kResponse alone
};

// What the engine would say of some of the responses if nothing else ran, so that it is said before
// any of them does: INVALID_ARGUMENT naming "interventions[i]..." or a field of "responses[i]";
// RESOURCE_EXHAUSTED for what never fits. CANCELLED once `cancellation` is raised.
absl::Status CheckResponses(const engine::Engine& engine,
                            std::span<const LabelledResponse> responses,
                            const ResponseMeansPlan& plan, const Cancellation& cancellation);

// Of the numbers that come of one response.
struct MeansShape {
  int64_t rows = 1;  // layers; 1 at sites without layers
  int64_t width = 1;
  bool token_norms = false;

  int64_t elements() const { return rows * (width + (token_norms ? 1 : 0)); }
  bool operator==(const MeansShape&) const = default;
};

MeansShape ShapeOf(const ResponseMeansPlan& plan, const model::Architecture& architecture);

struct Means {
  // Of each response, in order: a(r) [rows, width] row-major, what the plan's reduction, mostly the
  // mean, makes of its tokens, then
  // with token_norms the mean |x| over them, [rows].
  std::vector<std::vector<float>> rows;
  int64_t cached_tokens = 0;  // of prompts, found in the cache instead of run
};

// At most as many responses as should be in memory together: the caller cuts long lists. INTERNAL
// where the engine returns another shape.
absl::StatusOr<Means> ResponseMeans(engine::Engine& engine,
                                    std::span<const LabelledResponse> responses,
                                    const ResponseMeansPlan& plan,
                                    const Cancellation& cancellation);

}  // namespace valuescope::studies

#endif  // VALUESCOPE_STUDIES_RESPONSE_MEANS_H_
