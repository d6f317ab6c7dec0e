// The inputs of a request to capture as a job keeps them: tokenised, each of them something that
// the engine will take, and all together no more than a job leaves.
#ifndef VALUESCOPE_KINDS_CAPTURE_INPUTS_H_
#define VALUESCOPE_KINDS_CAPTURE_INPUTS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/request.h"
#include "engine/served_model.h"
#include "engine/token_scope.h"
#include "kinds/capture_plan.h"
#include "kinds/saved_work.pb.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/request_codec.h"
#include "valuescope/v1/activations.pb.h"

namespace valuescope::kinds {

// Of a data set.
inline constexpr int64_t kMostCaptureLines = int64_t{1} << 20;

struct CaptureInputs {
  SavedTexts texts;   // prompts and ids
  int64_t bytes = 0;  // of what is captured of them
  int64_t num_tokens = 0;
  std::string digest;          // SHA-256 of their tokens, hexadecimal
  bool rendered_chat = false;  // a chat template wrote some prompt
};

// How long an input is.
engine::SequenceExtent ExtentOf(const SavedText& input);

// `capture` is what they share, and `plan` what is left of them. An artifact is added to `used`.
// INVALID_ARGUMENT naming a field beneath "inputs[i]", "artifact" with the number of the line, or a
// tap that reads nothing of some input; RESOURCE_EXHAUSTED, reason CAPTURE_TOO_LARGE or
// DATA_SET_TOO_LARGE; errors of services::OpenDataSet. The call holds their memory.
absl::StatusOr<CaptureInputs> ReadCaptureInputs(
    const v1::CaptureRequest& request, const engine::Request& capture, const CapturePlan& plan,
    const engine::ServedModel& model, const rpc::CallContext& context, const Sources& sources,
    services::UsedResources& used);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_CAPTURE_INPUTS_H_
