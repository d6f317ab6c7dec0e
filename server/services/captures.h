// Captures: sequences run for what taps see of them. A call streams what comes of each, a job keeps
// it in files; how a request is read and how it is run stands here, so that both give the same
// bytes.
#ifndef VALUESCOPE_SERVICES_CAPTURES_H_
#define VALUESCOPE_SERVICES_CAPTURES_H_

#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "engine/token_scope.h"
#include "rpc/call_context.h"
#include "services/intervention_codec.h"
#include "services/prompt_codec.h"
#include "services/request_codec.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

inline constexpr int kMostCaptureInputs = 65536;  // inline

// A sequence to run, as token ids.
struct CapturedSequence {
  std::vector<int32_t> prompt;
  std::vector<int32_t> response;  // none: the prompt alone

  engine::SequenceExtent extent() const {
    const auto prompt_tokens = static_cast<int64_t>(prompt.size());
    return {.prompt = prompt_tokens, .most = prompt_tokens + static_cast<int64_t>(response.size())};
  }
};

// What the sequences of a request share. INVALID_ARGUMENT naming "taps"; errors of TapsFromProto
// and PreparedFromProto.
absl::StatusOr<engine::Request> CaptureFromProto(
    const google::protobuf::RepeatedPtrField<v1::Tap>& taps,
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const InterventionScope& scope, UsedResources& used);

// Reads sequences of one request, each of which the engine will take: nothing runs before that is
// known.
class SequenceReader {
 public:
  // `capture` is what they share. All outlive the reader.
  SequenceReader(const rpc::CallContext* context, const engine::Request* capture,
                 const engine::ServedModel* model);

  // `response` null: none. INVALID_ARGUMENT naming a field beneath `place` ("inputs[2]", or empty)
  // or, for a tap that reads nothing of this sequence, the tap's; the others of PromptFromProto and
  // engine::Engine::Check; why the call was stopped.
  absl::StatusOr<CapturedSequence> Read(const std::string& place, const v1::Prompt& prompt,
                                        const v1::Response* response);

  // A chat template wrote some prompt.
  bool rendered_chat() const { return rendered_chat_; }

 private:
  const rpc::CallContext& context_;
  const engine::Request& capture_;
  const engine::ServedModel& model_;
  const PromptOptions options_;
  bool rendered_chat_ = false;
  // What the engine has to say depends on the numbers of tokens; ids were looked at already.
  std::set<std::pair<size_t, size_t>> checked_;
};

using TakeCaptures = std::function<absl::Status(int index, engine::Completion completion)>;

// Runs sequences `first`, `first` + 1, .. of a request for the call's tenant, some at a time, and
// hands what came of each to `take`, in order. Ends with the first error, of `take` too.
absl::Status RunCaptures(const rpc::CallContext& context, engine::Engine& engine,
                         const engine::Request& capture,
                         std::span<const CapturedSequence> sequences, int first,
                         const TakeCaptures& take);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_CAPTURES_H_
