#include "services/generation_service.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/engine_runs.h"
#include "services/intervention_codec.h"
#include "services/prompt_codec.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/result_codec.h"
#include "services/tensor_codec.h"

namespace valuescope::services {
namespace {

constexpr int kMostCompletions = 64;
constexpr int kMostLogprobs = 20;
constexpr int kMostContinuations = 1024;
// Continuations that run at once, so that one call does not fill the engine's queue.
constexpr int kScoreWindow = 32;
// Bytes that a list of small messages takes for each on its way.
constexpr int64_t kMessageFactor = 4;
// Captures of one Generate; the rest of the message stays below 4 MB with it.
constexpr int64_t kMostCaptureBytes = int64_t{3} << 20;

// A Generate or StreamGenerate request, ready to run.
struct GenerationPlan {
  std::shared_ptr<const engine::ServedModel> model;
  engine::Request request;  // of completion 0
  int n = 1;
  UsedResources used;

  engine::Request RequestOf(int index) const {
    engine::Request one = request;
    one.sampling->seed = SeedOfCompletion(request.sampling->seed, index);
    return one;
  }
};

// `Request` is v1::GenerateRequest or v1::StreamGenerateRequest, which have the same fields.
template <typename Request>
absl::StatusOr<GenerationPlan> Plan(const rpc::CallContext& context, const Request& request,
                                    const engine::ModelRegistry& models, VectorResolver& vectors) {
  GenerationPlan plan;
  VS_ASSIGN_OR_RETURN(plan.model, ModelOfName("model", request.model(), models));
  const engine::ServedModel& model = *plan.model;
  VS_RETURN_IF_ERROR(model.engine->CheckAccepts());
  if (request.has_n()) plan.n = request.n();
  if (plan.n < 1 || plan.n > kMostCompletions) {
    return OutOfRange("n", plan.n, 1, kMostCompletions);
  }
  std::optional<int32_t> logprobs;
  if (request.has_logprobs()) {
    logprobs = request.logprobs();
    if (*logprobs < 0 || *logprobs > kMostLogprobs) {
      return OutOfRange("logprobs", *logprobs, 0, kMostLogprobs);
    }
  }
  VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt,
                      PromptFromProto("prompt", request.prompt(), model, {.now = absl::Now()}));
  const int64_t room = model.architecture.max_positions - static_cast<int64_t>(prompt.ids.size());
  plan.request.prompt = std::move(prompt.ids);
  plan.request.sampling = SamplingFromProto(request.sampling(), logprobs, room);
  VS_ASSIGN_OR_RETURN(
      plan.request.prepared,
      PreparedFromProto(request.interventions(),
                        {.tenant = context.tenant, .model = model, .vectors = vectors}, plan.used));
  VS_ASSIGN_OR_RETURN(plan.request.taps, TapsFromProto(request.taps(), model));
  return plan;
}

// All completions, or as many as there is room for while `done` of them are.
absl::Status SubmitCompletions(const GenerationPlan& plan, int done, EngineRuns& runs,
                               int& submitted) {
  return runs.SubmitWhileRoom(
      plan.n, done, [&plan](int index) { return plan.RequestOf(index); }, submitted);
}

void CountUsage(const engine::Completion& completion, v1::Usage& usage) {
  // The prompt is one, however many completions continue it: of its tokens, those were cached that
  // none of them ran.
  const bool first = usage.prompt_tokens() == 0;
  usage.set_cached_prompt_tokens(
      first ? completion.cached_prompt_tokens
            : std::min(usage.cached_prompt_tokens(), completion.cached_prompt_tokens));
  usage.set_prompt_tokens(completion.prompt_tokens);
  usage.set_generated_tokens(usage.generated_tokens() + completion.generated_tokens);
}

// Everything of a completion that a stream sends at its end.
v1::Completion EndOfCompletion(const GenerationPlan& plan, int index,
                               const engine::Completion& completion) {
  v1::Completion proto;
  proto.set_index(index);
  proto.set_finish_reason(FinishReasonToProto(completion.finish_reason));
  for (const engine::Receipt& receipt : completion.receipts) {
    *proto.add_receipts() = ReceiptToProto(receipt);
  }
  proto.set_seed(SeedOfCompletion(plan.request.sampling->seed, index));
  return proto;
}

v1::Completion WholeCompletion(const GenerationPlan& plan, int index,
                               const engine::Completion& completion) {
  v1::Completion proto = EndOfCompletion(plan, index, completion);
  proto.set_text(completion.text);
  proto.mutable_token_ids()->Assign(completion.token_ids.begin(), completion.token_ids.end());
  if (plan.request.sampling->top_logprobs >= 0) {
    *proto.mutable_logprobs() = LogprobsToProto(completion.logprobs);
  }
  for (const engine::Capture& capture : completion.captures) {
    ForEachChunk(capture, index, [&](v1::CaptureChunk chunk) {
      *proto.add_captures() = std::move(chunk);
      return absl::OkStatus();
    }).IgnoreError();
  }
  return proto;
}

v1::StreamGenerateResponse DeltaEvent(const GenerationPlan& plan, int index,
                                      const engine::Delta& delta) {
  v1::StreamGenerateResponse event;
  v1::CompletionDelta& proto = *event.mutable_delta();
  proto.set_index(index);
  proto.set_text(delta.text);
  proto.mutable_token_ids()->Assign(delta.token_ids.begin(), delta.token_ids.end());
  if (plan.request.sampling->top_logprobs >= 0) {
    *proto.mutable_logprobs() = LogprobsToProto(delta.logprobs);
  }
  return event;
}

absl::Status WriteEnd(const GenerationPlan& plan, int index, const engine::Completion& completion,
                      rpc::StreamWriter<v1::StreamGenerateResponse>& writer) {
  for (const engine::Capture& capture : completion.captures) {
    VS_RETURN_IF_ERROR(ForEachChunk(capture, index, [&](v1::CaptureChunk chunk) {
      v1::StreamGenerateResponse event;
      *event.mutable_capture() = std::move(chunk);
      return writer.Write(std::move(event));
    }));
  }
  v1::StreamGenerateResponse event;
  *event.mutable_completion() = EndOfCompletion(plan, index, completion);
  return writer.Write(std::move(event));
}

int64_t MostCaptureBytesOf(const GenerationPlan& plan) {
  const int64_t prompt = static_cast<int64_t>(plan.request.prompt.size());
  return MostCaptureBytes(
      plan.request.taps,
      {.prompt = prompt, .most = prompt + plan.request.sampling->max_tokens, .generates = true},
      plan.model->architecture);
}

// How long texts become shows at their end only.
absl::Status CheckFitsAMessage(const v1::GenerateResponse& response) {
  return CheckReplySize(static_cast<int64_t>(response.ByteSizeLong()), "the completions",
                        "use StreamGenerate, or a lower `n`, `logprobs` or `sampling.max_tokens`");
}

// Of a whole reply, which holds what all completions gave until it is sent.
int64_t MostReplyBytes(const GenerationPlan& plan) {
  constexpr int64_t kTokenBytes = 16, kLogprobBytes = 16;
  const engine::Sampling& sampling = *plan.request.sampling;
  const int64_t logprobs = sampling.top_logprobs < 0 ? 0 : sampling.top_logprobs + 1;
  // What is out of range is for the engine to say.
  const int64_t tokens =
      std::clamp<int64_t>(sampling.max_tokens, 0, plan.model->architecture.max_positions);
  return plan.n * (std::max<int64_t>(0, MostCaptureBytesOf(plan)) +
                   tokens * (kTokenBytes + logprobs * kLogprobBytes));
}

absl::Status CheckCapturesFitAMessage(const GenerationPlan& plan) {
  const int64_t bytes = plan.n * MostCaptureBytesOf(plan);
  if (bytes <= kMostCaptureBytes) return absl::OkStatus();
  return NeverFits(
      "CAPTURE_TOO_LARGE_FOR_MESSAGE",
      absl::StrCat(
          "`taps`: may read ", bytes, " bytes, allowed in one message are ", kMostCaptureBytes,
          "; use StreamGenerate, a reduction, fewer layers or a lower sampling.max_tokens"));
}

// Of one reply: ids and log-probabilities are at most 5 and 4 bytes each, and a list of likeliest
// tokens has a header of its own.
int64_t MostScoreBytes(const std::vector<std::vector<int32_t>>& continuations,
                       const v1::ScoreRequest& request) {
  const int64_t top = std::max(request.top_logprobs(), 0);
  int64_t bytes = 0;
  for (const std::vector<int32_t>& ids : continuations) {
    bytes += 64 + 64 * request.interventions_size() +
             static_cast<int64_t>(ids.size()) * (9 + (top > 0 ? 8 + 9 * top : 0));
  }
  return bytes;
}

v1::ContinuationScore ScoreToProto(const engine::Completion& completion,
                                   const std::vector<int32_t>& ids) {
  v1::ContinuationScore score;
  const double sum = SumOfLogprobs(completion);
  for (const engine::TokenLogprob& token : completion.logprobs) {
    score.add_token_logprobs(token.logprob);
    if (!token.top.empty()) *score.add_top() = TopToProto(token);
  }
  score.set_sum(sum);
  score.set_mean(sum / static_cast<double>(std::max<size_t>(1, completion.logprobs.size())));
  score.mutable_token_ids()->Assign(ids.begin(), ids.end());
  for (const engine::Receipt& receipt : completion.receipts) {
    *score.add_receipts() = ReceiptToProto(receipt);
  }
  return score;
}

}  // namespace

absl::Status GenerationService::Generate(const rpc::CallContext& context,
                                         const v1::GenerateRequest& request,
                                         v1::GenerateResponse* response) {
  VS_ASSIGN_OR_RETURN(const GenerationPlan plan, Plan(context, request, *models_, *vectors_));
  VS_RETURN_IF_ERROR(CheckCapturesFitAMessage(plan));
  VS_ASSIGN_OR_RETURN(const auto reply,
                      plan.model->engine->TakeRequestMemory(MostReplyBytes(plan)));
  EngineRuns runs(&context, plan.model->engine.get(), {.with_deltas = false, .metrics = metrics_});
  for (int index = 0; index < plan.n; ++index) response->add_completions();
  for (int done = 0, submitted = 0; done < plan.n; ++done) {
    VS_RETURN_IF_ERROR(SubmitCompletions(plan, done, runs, submitted));
    VS_ASSIGN_OR_RETURN(const EngineEvent event, runs.Next());
    const auto& completion = std::get<engine::Completion>(event.what);
    *response->mutable_completions(event.index) = WholeCompletion(plan, event.index, completion);
    CountUsage(completion, *response->mutable_usage());
  }
  response->set_seed(plan.request.sampling->seed);
  AddDigests(*plan.model, plan.used, response->mutable_digests());
  VS_RETURN_IF_ERROR(CheckFitsAMessage(*response));
  if (request.return_prompt_token_ids()) {
    response->mutable_prompt_token_ids()->Assign(plan.request.prompt.begin(),
                                                 plan.request.prompt.end());
  }
  return absl::OkStatus();
}

absl::Status GenerationService::StreamGenerate(
    const rpc::CallContext& context, const v1::StreamGenerateRequest& request,
    rpc::StreamWriter<v1::StreamGenerateResponse>& writer) {
  VS_ASSIGN_OR_RETURN(const GenerationPlan plan, Plan(context, request, *models_, *vectors_));
  VS_RETURN_IF_ERROR(context.Hold(RoomForChunks(MostCaptureBytesOf(plan))));
  EngineRuns runs(&context, plan.model->engine.get(), {.with_deltas = true, .metrics = metrics_});
  v1::StreamGenerateResponse last;
  v1::GenerationSummary& summary = *last.mutable_summary();
  int submitted = 0;
  VS_RETURN_IF_ERROR(SubmitCompletions(plan, /*done=*/0, runs, submitted));
  for (int done = 0; done < plan.n;) {
    VS_ASSIGN_OR_RETURN(const EngineEvent event, runs.Next());
    if (const auto* delta = std::get_if<engine::Delta>(&event.what)) {
      VS_RETURN_IF_ERROR(writer.Write(DeltaEvent(plan, event.index, *delta)));
      continue;
    }
    const auto& completion = std::get<engine::Completion>(event.what);
    VS_RETURN_IF_ERROR(WriteEnd(plan, event.index, completion, writer));
    CountUsage(completion, *summary.mutable_usage());
    VS_RETURN_IF_ERROR(SubmitCompletions(plan, ++done, runs, submitted));
  }
  summary.set_seed(plan.request.sampling->seed);
  AddDigests(*plan.model, plan.used, summary.mutable_digests());
  if (request.return_prompt_token_ids()) {
    summary.mutable_prompt_token_ids()->Assign(plan.request.prompt.begin(),
                                               plan.request.prompt.end());
  }
  return writer.Write(std::move(last));
}

absl::Status GenerationService::Score(const rpc::CallContext& context,
                                      const v1::ScoreRequest& request,
                                      v1::ScoreResponse* response) {
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("model", request.model(), *models_));
  VS_RETURN_IF_ERROR(model->engine->CheckAccepts());
  const int count = request.continuations_size();
  if (count < 1 || count > kMostContinuations) {
    return OutOfRange("continuations", count, 1, kMostContinuations);
  }
  VS_ASSIGN_OR_RETURN(TokenisedPrompt prompt,
                      PromptFromProto("prompt", request.prompt(), *model, {.now = absl::Now()}));
  UsedResources used;
  engine::Request base;
  base.prompt = std::move(prompt.ids);
  base.score_response = true;
  base.top_logprobs = request.top_logprobs();
  VS_ASSIGN_OR_RETURN(
      base.prepared,
      PreparedFromProto(request.interventions(),
                        {.tenant = context.tenant, .model = *model, .vectors = *vectors_}, used));
  std::vector<std::vector<int32_t>> continuations;
  VS_ASSIGN_OR_RETURN(const auto memory, model->engine->TakeRequestMemory(0));
  std::set<size_t> checked;
  for (int i = 0; i < count; ++i) {
    const std::string field = absl::StrCat("continuations[", i, "]");
    VS_ASSIGN_OR_RETURN(auto ids, ResponseFromProto(field, request.continuations(i), *model));
    if (ids.empty()) return InvalidField(field, "has no tokens; it needs at least one");
    VS_RETURN_IF_ERROR(context.Why());
    VS_RETURN_IF_ERROR(
        memory->Grow(static_cast<int64_t>(sizeof(ids) + ids.size() * sizeof(ids.front()))));
    // Nothing runs before it is known that all will. What the engine has to say depends on the
    // number of tokens; ids were looked at already.
    if (checked.insert(ids.size()).second) {
      engine::Request one = base;
      one.given_response = ids;
      VS_RETURN_IF_ERROR(WithFieldRenamed(model->engine->Check(one), "given_response", field));
    }
    continuations.push_back(std::move(ids));
  }
  const int64_t reply_bytes = MostScoreBytes(continuations, request);
  VS_RETURN_IF_ERROR(CheckReplySize(reply_bytes, "the scores",
                                    "ask for fewer `continuations` at once or fewer "
                                    "`top_logprobs`"));
  // As messages they take several times as much as on their way.
  VS_RETURN_IF_ERROR(memory->Grow(kMessageFactor * reply_bytes));
  const auto request_of = [&](int index) {
    engine::Request one = base;
    one.given_response = continuations[static_cast<size_t>(index)];
    return one;
  };
  EngineRuns runs(&context, model->engine.get(), {});
  for (int i = 0; i < count; ++i) response->add_scores();
  int submitted = 0;
  for (int done = 0; done < count; ++done) {
    const absl::Status status =
        runs.SubmitWhileRoom(std::min(count, done + kScoreWindow), done, request_of, submitted);
    if (!status.ok()) {
      return WithFieldRenamed(status, "given_response",
                              absl::StrCat("continuations[", submitted, "]"));
    }
    VS_ASSIGN_OR_RETURN(const EngineEvent event, runs.Next());
    const auto& completion = std::get<engine::Completion>(event.what);
    *response->mutable_scores(event.index) =
        ScoreToProto(completion, continuations[static_cast<size_t>(event.index)]);
    AddUsage(completion, *response->mutable_usage());
  }
  AddDigests(*model, used, response->mutable_digests());
  return absl::OkStatus();
}

}  // namespace valuescope::services
