// A request to generate responses, resolved: models found, queries read, prompts written and
// tokenised, everything checked that can be before anything runs; nothing is generated.
//
// Text from outside that spells a control token of the model is refused: it would end a turn, or
// begin one.
#ifndef VALUESCOPE_KINDS_GENERATION_REQUEST_H_
#define VALUESCOPE_KINDS_GENERATION_REQUEST_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/generated_responses.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "services/request_codec.h"
#include "studies/labelled_responses.h"
#include "valuescope/v1/judges.pb.h"

namespace valuescope::kinds {

// Tokens that a call may generate at most.
inline constexpr int64_t kMostGeneratedAtOnce = int64_t{1} << 18;

// Of a request whose field `generated` this is. What it names is added to `used`, the judge's model
// with the digest of its weights. INVALID_ARGUMENT naming "generated..."; RESOURCE_EXHAUSTED: more
// than a call takes (USE_A_JOB), or than a job (DATA_SET_TOO_LARGE); others of who reads models,
// artifacts and chats.
absl::StatusOr<Generation> GenerationOf(const v1::GeneratedResponses& request,
                                        bool include_end_of_turn, const engine::ServedModel& model,
                                        const rpc::CallContext& context,
                                        const services::ResolveOptions& options,
                                        const Sources& sources, services::UsedResources& used);

// A response as long as may be for each length of prompts: what can be said of them before they are
// there.
std::vector<studies::LabelledResponse> LongestResponses(const Generation& generation,
                                                        const engine::ServedModel& model);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_GENERATION_REQUEST_H_
