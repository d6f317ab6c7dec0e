// A request to generate responses, resolved: models found, queries read, prompts written and
// tokenised, everything checked that can be before anything runs; nothing is generated.
//
// Text from outside that spells a control token of the model is refused: it would end a turn, or
// begin one.
#ifndef VALUESCOPE_KINDS_GENERATION_REQUEST_H_
#define VALUESCOPE_KINDS_GENERATION_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/generated_responses.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/kind.h"
#include "services/request_codec.h"
#include "studies/labelled_responses.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/generation.pb.h"
#include "valuescope/v1/judges.pb.h"

namespace valuescope::kinds {

// Tokens that a call may generate at most.
inline constexpr int64_t kMostGeneratedAtOnce = int64_t{1} << 18;

// A condition, whichever message of the contract tells of it.
struct ConditionSource {
  std::string name;
  // Of which each query gets one; empty: there is none.
  std::vector<std::string> system_messages;
  std::string system_field;  // names one of them; "[i]" is added where `several_messages`
  bool several_messages = false;
  std::optional<bool> expresses;
  std::string field;  // its own, of its interventions
  const google::protobuf::RepeatedPtrField<v1::Intervention>* interventions = nullptr;
};

// What is asked for, whichever message of the contract asks. What it refers to outlives it.
struct GenerationSource {
  std::string whole;   // names the message in sentences: "`generated`"
  std::string prefix;  // of the names of its fields: "generated."
  const google::protobuf::RepeatedPtrField<std::string>& queries;
  const std::string& queries_artifact;
  std::vector<ConditionSource> conditions;  // at least one
  int most_conditions = 0;
  const v1::SamplingParams& sampling;
  int samples = 1;
  const v1::Judge* judge = nullptr;
  bool labels_required = true;  // by a condition or the judge
  uint64_t draw_seed = 0;       // of system messages
  bool include_end_of_turn = false;
};
GenerationSource SourceOf(const v1::GeneratedResponses& request, bool include_end_of_turn);

// What it names is added to `used`, the judge's model with the digest of its weights.
// INVALID_ARGUMENT naming its fields; RESOURCE_EXHAUSTED: more than a call takes (USE_A_JOB), or
// than a job (DATA_SET_TOO_LARGE); others of who reads models, artifacts, chats and interventions.
absl::StatusOr<Generation> GenerationOf(const GenerationSource& source,
                                        const engine::ServedModel& model,
                                        const rpc::CallContext& context,
                                        const services::ResolveOptions& options,
                                        const Sources& sources, services::UsedResources& used);

// A response as long as may be for each length of prompts: what can be said of them before they are
// there.
std::vector<studies::LabelledResponse> LongestResponses(const Generation& generation,
                                                        const engine::ServedModel& model);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_GENERATION_REQUEST_H_
