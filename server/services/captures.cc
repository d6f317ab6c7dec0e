#include "services/captures.h"

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/engine_runs.h"

namespace valuescope::services {
namespace {

constexpr int kMostTaps = 16;
// Sequences that run or wait to be taken: results are held until those before them were. So many,
// because many calls share the queue, or fewer that have so many tokens, which fill steps as well
// and hold more.
constexpr int64_t kMostInFlight = 16;
constexpr int64_t kMostTokensInFlight = 4096;

// "inputs[2].prompt", or "prompt" where the place has no name.
std::string Beneath(const std::string& place, absl::string_view name) {
  return place.empty() ? std::string(name) : absl::StrCat(place, ".", name);
}

// The engine knows one prompt and one response; a request has a list of inputs. What is wrong for
// one of them may be a tap that reads nothing of it.
absl::Status OfInput(const std::string& place, const absl::Status& status) {
  const absl::Status renamed =
      WithFieldRenamed(WithFieldRenamed(status, "prompt", Beneath(place, "prompt")),
                       "given_response", Beneath(place, "response"));
  const ErrorDetails details = DetailsOf(renamed);
  if (place.empty() || details.field.empty() || absl::StartsWith(details.field, place)) {
    return renamed;
  }
  return InvalidField(details.field, absl::StrCat(details.description, " (for `", place, "`)"),
                      details.reason);
}

engine::Request RequestOf(const engine::Request& capture, const CapturedSequence& sequence) {
  engine::Request request = capture;
  request.prompt = sequence.prompt;
  request.given_response = sequence.response;
  return request;
}

// The end of the sequences that may run while `first` was not taken.
int64_t WindowEnd(std::span<const CapturedSequence> sequences, int64_t first) {
  const int64_t most = std::min(static_cast<int64_t>(sequences.size()), first + kMostInFlight);
  int64_t end = first, tokens = 0;
  while (end < most && (end < first + 2 || tokens < kMostTokensInFlight)) {
    tokens += sequences[static_cast<size_t>(end++)].extent().most;
  }
  return end;
}

}  // namespace

absl::StatusOr<engine::Request> CaptureFromProto(
    const google::protobuf::RepeatedPtrField<v1::Tap>& taps,
    const google::protobuf::RepeatedPtrField<v1::Intervention>& interventions,
    const InterventionScope& scope, UsedResources& used) {
  if (taps.size() < 1 || taps.size() > kMostTaps) {
    return OutOfRange("taps", taps.size(), 1, kMostTaps);
  }
  engine::Request capture;
  VS_ASSIGN_OR_RETURN(capture.taps, TapsFromProto(taps, scope.model));
  VS_ASSIGN_OR_RETURN(capture.prepared, PreparedFromProto(interventions, scope, used));
  return capture;
}

SequenceReader::SequenceReader(const rpc::CallContext* context, const engine::Request* capture,
                               const engine::ServedModel* model)
    : context_(*context), capture_(*capture), model_(*model), options_{.now = absl::Now()} {}

absl::StatusOr<CapturedSequence> SequenceReader::Read(const std::string& place,
                                                      const v1::Prompt& prompt,
                                                      const v1::Response* response) {
  VS_RETURN_IF_ERROR(context_.Why());
  CapturedSequence sequence;
  VS_ASSIGN_OR_RETURN(TokenisedPrompt tokenised,
                      PromptFromProto(Beneath(place, "prompt"), prompt, model_, options_));
  sequence.prompt = std::move(tokenised.ids);
  rendered_chat_ |= tokenised.from_chat;
  if (response != nullptr) {
    VS_ASSIGN_OR_RETURN(sequence.response,
                        ResponseFromProto(Beneath(place, "response"), *response, model_));
  }
  if (checked_.emplace(sequence.prompt.size(), sequence.response.size()).second) {
    VS_RETURN_IF_ERROR(OfInput(place, model_.engine->Check(RequestOf(capture_, sequence))));
  }
  return sequence;
}

absl::Status RunCaptures(const rpc::CallContext& context, engine::Engine& engine,
                         const engine::Request& capture,
                         std::span<const CapturedSequence> sequences, int first,
                         const TakeCaptures& take) {
  EngineRuns runs(&context, &engine, {});
  // What sequences share is copied for those that run only.
  const auto request_of = [&](int index) {
    return RequestOf(capture, sequences[static_cast<size_t>(index - first)]);
  };
  std::map<int, engine::Completion> done;  // not taken yet
  const int end = first + static_cast<int>(sequences.size());
  int submitted = first;
  for (int next = first; next < end; ++next) {
    const int window = first + static_cast<int>(WindowEnd(sequences, next - first));
    const absl::Status status = runs.SubmitWhileRoom(window, next, request_of, submitted);
    if (!status.ok()) return OfInput(absl::StrCat("inputs[", submitted, "]"), status);
    while (!done.contains(next)) {
      VS_ASSIGN_OR_RETURN(EngineEvent event, runs.Next());
      done.emplace(event.index, std::get<engine::Completion>(std::move(event.what)));
    }
    VS_RETURN_IF_ERROR(take(next, std::move(done.extract(next).mapped())));
  }
  return absl::OkStatus();
}

}  // namespace valuescope::services
