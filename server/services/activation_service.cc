#include "services/activation_service.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/engine_runs.h"
#include "services/intervention_codec.h"
#include "services/prompt_codec.h"
#include "services/request_codec.h"
#include "services/result_codec.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

constexpr int kMostTaps = 16;
constexpr int kMostInputs = 65536;
// Inputs that run or wait to be sent: results are held until the client took those before them. So
// many, because many calls share the queue, or fewer that have so many tokens, which fill steps as
// well and hold more.
constexpr int kMostInFlight = 16;
constexpr size_t kMostTokensInFlight = 4096;

// The engine knows one prompt and one response; the client has a list of inputs. What is wrong for
// one of them may be a tap that reads nothing of it.
absl::Status OfInput(int index, const absl::Status& status) {
  const std::string input = absl::StrCat("inputs[", index, "]");
  const absl::Status renamed = WithFieldRenamed(
      WithFieldRenamed(status, "prompt", input + ".prompt"), "given_response", input + ".response");
  const ErrorDetails details = DetailsOf(renamed);
  if (details.field.empty() || absl::StartsWith(details.field, input)) return renamed;
  return InvalidField(details.field, absl::StrCat(details.description, " (for `", input, "`)"),
                      details.reason);
}

struct Input {
  std::vector<int32_t> prompt, response;  // token ids
  size_t num_tokens() const { return prompt.size() + response.size(); }
};

absl::StatusOr<Input> InputFromProto(const std::string& field, const v1::CaptureInput& proto,
                                     const engine::ServedModel& model) {
  Input input;
  VS_ASSIGN_OR_RETURN(
      TokenisedPrompt prompt,
      PromptFromProto(absl::StrCat(field, ".prompt"), proto.prompt(), model, {.now = absl::Now()}));
  input.prompt = std::move(prompt.ids);
  if (proto.has_response()) {
    VS_ASSIGN_OR_RETURN(input.response, ResponseFromProto(absl::StrCat(field, ".response"),
                                                          proto.response(), model));
  }
  return input;
}

engine::Request WithInput(engine::Request request, const Input& input) {
  request.prompt = input.prompt;
  request.given_response = input.response;
  return request;
}

// All inputs, each of which the engine will take: nothing runs before that is known.
absl::StatusOr<std::vector<Input>> InputsFromProto(const rpc::CallContext& context,
                                                   const v1::CaptureRequest& request,
                                                   const engine::Request& base,
                                                   const engine::ServedModel& model,
                                                   MemoryLedger::Lease& memory) {
  std::vector<Input> inputs;
  // What the engine has to say depends on the numbers of tokens; ids were looked at already.
  std::set<std::pair<size_t, size_t>> checked;
  for (int i = 0; i < request.inputs_size(); ++i) {
    VS_RETURN_IF_ERROR(context.Why());
    VS_ASSIGN_OR_RETURN(Input input,
                        InputFromProto(absl::StrCat("inputs[", i, "]"), request.inputs(i), model));
    VS_RETURN_IF_ERROR(memory.Grow(
        static_cast<int64_t>(sizeof(input) + input.num_tokens() * sizeof(input.prompt.front()))));
    if (checked.emplace(input.prompt.size(), input.response.size()).second) {
      VS_RETURN_IF_ERROR(OfInput(i, model.engine->Check(WithInput(base, input))));
    }
    inputs.push_back(std::move(input));
  }
  return inputs;
}

// The end of the inputs that may run while `first` was not sent.
int WindowEnd(const std::vector<Input>& inputs, int first) {
  const int most = std::min(static_cast<int>(inputs.size()), first + kMostInFlight);
  int end = first;
  size_t tokens = 0;
  while (end < most && (end < first + 2 || tokens < kMostTokensInFlight)) {
    tokens += inputs[static_cast<size_t>(end++)].num_tokens();
  }
  return end;
}

// Of any of them.
int64_t MostCaptureBytesOf(const std::vector<Input>& inputs, const engine::Request& base,
                           const engine::ServedModel& model) {
  int64_t most = 0;
  for (const Input& input : inputs) {
    const engine::SequenceExtent extent{.prompt = static_cast<int64_t>(input.prompt.size()),
                                        .most = static_cast<int64_t>(input.num_tokens())};
    most = std::max(most, MostCaptureBytes(base.taps, extent, model.architecture));
    if (most >= kMaxChunkBytes) break;
  }
  return most;
}

absl::Status WriteInput(int index, const Input& input, const engine::Completion& completion,
                        rpc::StreamWriter<v1::CaptureResponse>& writer) {
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

absl::Status ActivationService::Capture(const rpc::CallContext& context,
                                        const v1::CaptureRequest& request,
                                        rpc::StreamWriter<v1::CaptureResponse>& writer) {
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
  VS_ASSIGN_OR_RETURN(
      base.prepared,
      PreparedFromProto(request.interventions(),
                        {.tenant = context.tenant, .model = *model, .vectors = *vectors_}, used));
  VS_ASSIGN_OR_RETURN(const auto memory, model->engine->TakeRequestMemory(0));
  VS_ASSIGN_OR_RETURN(const std::vector<Input> inputs,
                      InputsFromProto(context, request, base, *model, *memory));
  // What inputs share is copied for those that run only.
  const auto request_of = [&](int index) {
    return WithInput(base, inputs[static_cast<size_t>(index)]);
  };

  VS_RETURN_IF_ERROR(context.Hold(RoomForChunks(MostCaptureBytesOf(inputs, base, *model))));
  EngineRuns runs(&context, model->engine.get(), {});
  v1::CaptureResponse last;
  v1::Usage& usage = *last.mutable_summary()->mutable_usage();
  std::map<int, engine::Completion> done;  // not sent yet
  const int count = request.inputs_size();
  int submitted = 0;
  for (int next = 0; next < count; ++next) {
    const absl::Status status =
        runs.SubmitWhileRoom(WindowEnd(inputs, next), next, request_of, submitted);
    if (!status.ok()) return OfInput(submitted, status);
    while (!done.contains(next)) {
      VS_ASSIGN_OR_RETURN(EngineEvent event, runs.Next());
      done.emplace(event.index, std::get<engine::Completion>(std::move(event.what)));
    }
    const auto completion = done.extract(next);
    VS_RETURN_IF_ERROR(
        WriteInput(next, inputs[static_cast<size_t>(next)], completion.mapped(), writer));
    AddUsage(completion.mapped(), usage);
  }
  AddDigests(*model, used, last.mutable_summary()->mutable_digests());
  return writer.Write(std::move(last));
}

}  // namespace valuescope::services
