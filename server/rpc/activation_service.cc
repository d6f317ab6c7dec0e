#include "rpc/activation_service.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "rpc/engine_runs.h"
#include "rpc/intervention_codec.h"
#include "rpc/request_codec.h"
#include "rpc/result_codec.h"
#include "rpc/tensor_codec.h"

namespace valuescope::rpc {
namespace {

constexpr int kMostTaps = 16;
constexpr int kMostInputs = 65536;
// Inputs that run or wait to be sent: results are held until the client took those before them.
constexpr int kCaptureWindow = 8;

// The engine knows one prompt and one response; the client has a list of inputs.
absl::Status OfInput(int index, const absl::Status& status) {
  const std::string input = absl::StrCat("inputs[", index, "]");
  return WithFieldRenamed(WithFieldRenamed(status, "prompt", input + ".prompt"), "given_response",
                          input + ".response");
}

struct Input {
  std::vector<int32_t> prompt, response;  // token ids
};

absl::StatusOr<std::vector<Input>> InputsFromProto(const v1::CaptureRequest& request,
                                                   const engine::ServedModel& model) {
  std::vector<Input> inputs;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const std::string field = absl::StrCat("inputs[", i, "]");
    const v1::CaptureInput& input = request.inputs(i);
    VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt,
                        PromptFromProto(absl::StrCat(field, ".prompt"), input.prompt(), model,
                                        {.now = absl::Now()}));
    inputs.push_back({.prompt = std::move(prompt.ids), .response = {}});
    if (input.has_response()) {
      VS_ASSIGN_OR_RETURN(
          inputs.back().response,
          ResponseFromProto(absl::StrCat(field, ".response"), input.response(), model));
    }
  }
  return inputs;
}

absl::Status WriteInput(int index, const Input& input, const engine::Completion& completion,
                        StreamWriter<v1::CaptureResponse>& writer) {
  v1::CaptureResponse first;
  v1::InputReceipts& receipts = *first.mutable_receipts();
  receipts.set_input_index(index);
  for (const engine::Receipt& receipt : completion.receipts) {
    *receipts.add_receipts() = ReceiptToProto(receipt);
  }
  receipts.set_prompt_tokens(static_cast<int32_t>(input.prompt.size()));
  receipts.set_response_tokens(static_cast<int32_t>(input.response.size()));
  VS_RETURN_IF_ERROR(writer.Write(std::move(first)));
  for (const engine::Capture& capture : completion.captures) {
    VS_RETURN_IF_ERROR(ForEachChunk(capture, index, [&](v1::CaptureChunk chunk) {
      v1::CaptureResponse event;
      *event.mutable_chunk() = std::move(chunk);
      return writer.Write(std::move(event));
    }));
  }
  return absl::OkStatus();
}

}  // namespace

ActivationService::ActivationService(CallRuntime* runtime, const engine::ModelRegistry* models,
                                     VectorResolver* vectors)
    : RpcService("valuescope.v1.ActivationService", runtime), models_(models), vectors_(vectors) {
  ServerStream("Capture", Lane::kLong, this, &ActivationService::Capture);
}

absl::Status ActivationService::Capture(const CallContext& context,
                                        const v1::CaptureRequest& request,
                                        StreamWriter<v1::CaptureResponse>& writer) {
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("model", request.model(), *models_));
  VS_RETURN_IF_ERROR(model->engine->CheckAccepts());
  if (!request.artifact().empty()) {
    return InvalidField("artifact", "is served only in a job; give inputs");
  }
  if (request.inputs_size() < 1 || request.inputs_size() > kMostInputs) {
    return OutOfRange("inputs", request.inputs_size(), 1, kMostInputs);
  }
  if (request.taps_size() < 1 || request.taps_size() > kMostTaps) {
    return OutOfRange("taps", request.taps_size(), 1, kMostTaps);
  }
  UsedResources used;
  engine::Request base;
  VS_ASSIGN_OR_RETURN(base.taps, TapsFromProto(request.taps(), *model));
  VS_ASSIGN_OR_RETURN(base.interventions,
                      InterventionsFromProto(
                          request.interventions(),
                          {.tenant = context.tenant, .model = *model, .vectors = *vectors_}, used));
  VS_ASSIGN_OR_RETURN(const std::vector<Input> inputs, InputsFromProto(request, *model));
  // What inputs share is copied for those that run only.
  const auto request_of = [&](int index) {
    engine::Request one = base;
    one.prompt = inputs[static_cast<size_t>(index)].prompt;
    one.given_response = inputs[static_cast<size_t>(index)].response;
    return one;
  };

  EngineRuns runs(&context, model->engine.get(), {});
  v1::CaptureResponse last;
  v1::Usage& usage = *last.mutable_summary()->mutable_usage();
  std::map<int, engine::Completion> done;  // not sent yet
  const int count = request.inputs_size();
  int submitted = 0;
  for (int next = 0; next < count; ++next) {
    const absl::Status status =
        runs.SubmitWhileRoom(std::min(count, next + kCaptureWindow), next, request_of, submitted);
    if (!status.ok()) return OfInput(submitted, status);
    while (!done.contains(next)) {
      VS_ASSIGN_OR_RETURN(EngineEvent event, runs.Next());
      done.emplace(event.index, std::get<engine::Completion>(std::move(event.what)));
    }
    const auto completion = done.extract(next);
    VS_RETURN_IF_ERROR(
        WriteInput(next, inputs[static_cast<size_t>(next)], completion.mapped(), writer));
    usage.set_prompt_tokens(usage.prompt_tokens() + completion.mapped().prompt_tokens);
    usage.set_cached_prompt_tokens(usage.cached_prompt_tokens() +
                                   completion.mapped().cached_prompt_tokens);
  }
  AddDigests(*model, used, last.mutable_summary()->mutable_digests());
  return writer.Write(std::move(last));
}

}  // namespace valuescope::rpc
