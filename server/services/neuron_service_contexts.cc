// NeuronService.TopContexts: the texts of a data set in which neurons are most active.
#include <algorithm>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/neuron_service.h"
#include "services/reply_size.h"
#include "services/request_codec.h"
#include "services/response_reader.h"
#include "studies/top_contexts.h"

namespace valuescope::services {
namespace {

constexpr int kMostNeurons = 256, kMostContexts = 100, kMostWindow = 64;
constexpr int64_t kMostTexts = 20'000;
// Of all windows together: what fits one message with some room.
constexpr int64_t kMostShownTokens = 300'000;
// A token of a window and a context, here and in the reply.
constexpr int64_t kShownTokenMemory = 64, kContextMemory = 512;
// Texts that run together, and the bytes of activations above which no further one joins them.
constexpr size_t kTextsAtOnce = 16;
constexpr int64_t kCapturesAtOnce = int64_t{8} << 20;
// A token of a text that runs: its id here and in the engine's request.
constexpr int64_t kContextTokenMemory = 2 * sizeof(int32_t);

constexpr char kSmallerContexts[] = "ask for fewer `neurons`, `top_k` or a smaller `window`";

absl::StatusOr<std::vector<studies::NeuronPlace>> NeuronsFromProto(
    const google::protobuf::RepeatedPtrField<v1::NeuronId>& protos,
    const model::Architecture& architecture) {
  if (protos.size() < 1 || protos.size() > kMostNeurons) {
    return OutOfRange("neurons", protos.size(), 1, kMostNeurons);
  }
  std::vector<studies::NeuronPlace> neurons;
  std::set<std::pair<int, int>> seen;
  for (int i = 0; i < protos.size(); ++i) {
    const v1::NeuronId& neuron = protos[i];
    const std::string field = absl::StrCat("neurons[", i, "]");
    VS_RETURN_IF_ERROR(
        CheckNeuronId(field, neuron, architecture.num_layers, architecture.intermediate));
    if (!seen.emplace(neuron.layer(), neuron.index()).second) {
      return InvalidField(field, "is there twice");
    }
    neurons.push_back({.layer = neuron.layer(), .index = neuron.index()});
  }
  return neurons;
}

absl::StatusOr<studies::ContextsPlan> PlanOf(const rpc::CallContext& context,
                                             const v1::TopContextsRequest& request,
                                             const model::Architecture& architecture) {
  studies::ContextsPlan plan{.tenant = context.tenant, .neurons = {}, .tokens = {}};
  VS_ASSIGN_OR_RETURN(plan.neurons, NeuronsFromProto(request.neurons(), architecture));
  VS_ASSIGN_OR_RETURN(plan.tokens,
                      TokensFromProto("tokens", request.tokens(), architecture.max_positions,
                                      engine::TokenKind::kResponse));
  if (request.has_top_k()) plan.top_k = request.top_k();
  if (plan.top_k < 1 || plan.top_k > kMostContexts) {
    return OutOfRange("top_k", plan.top_k, 1, kMostContexts);
  }
  if (request.has_window()) plan.window = request.window();
  if (plan.window < 0 || plan.window > kMostWindow) {
    return OutOfRange("window", plan.window, 0, kMostWindow);
  }
  return plan;
}

// Before anything runs: what is kept of so many texts, and told.
absl::Status HoldContexts(const rpc::CallContext& context, const studies::ContextsPlan& plan,
                          int64_t num_texts) {
  const int64_t contexts =
      static_cast<int64_t>(plan.neurons.size()) * std::min<int64_t>(plan.top_k, num_texts);
  const int64_t tokens = contexts * (2 * plan.window + 1);
  if (tokens > kMostShownTokens) {
    return NeverFits("RESPONSE_TOO_LARGE",
                     absl::StrCat("the windows may have ", tokens, " tokens together, allowed are ",
                                  kMostShownTokens, "; ", kSmallerContexts));
  }
  return context.Hold(tokens * kShownTokenMemory + contexts * kContextMemory);
}

// Takes texts from a reader, as many at once as are to run together.
class TextsTogether {
 public:
  TextsTogether(const rpc::CallContext* context, const studies::ContextSearch* search,
                ResponseReader* reader)
      : context_(context), search_(search), reader_(reader) {}

  // Empty behind the last. The call holds memory for them and for their activations.
  absl::StatusOr<std::vector<studies::NumberedText>> Next() {
    std::vector<studies::NumberedText> texts;
    int64_t captures = 0, tokens = 0;
    while (texts.size() < kTextsAtOnce && captures < kCapturesAtOnce) {
      VS_ASSIGN_OR_RETURN(auto text, reader_->Next());
      if (!text) break;
      texts.push_back({.number = next_++, .tokens = *std::move(text)});
      captures += search_->CaptureBytes(texts.back());
      tokens += static_cast<int64_t>(texts.back().tokens.prompt.size() +
                                     texts.back().tokens.response.size());
      VS_RETURN_IF_ERROR(HoldAtLeast(captures + tokens * kContextTokenMemory));
    }
    return texts;
  }

 private:
  absl::Status HoldAtLeast(int64_t bytes) {
    if (bytes <= held_) return absl::OkStatus();
    VS_RETURN_IF_ERROR(context_->Hold(bytes - held_));
    held_ = bytes;
    return absl::OkStatus();
  }

  const rpc::CallContext* const context_;
  const studies::ContextSearch* const search_;
  ResponseReader* const reader_;
  int64_t next_ = 0;
  int64_t held_ = 0;
};

v1::NeuronContext ContextToProto(const studies::NeuronContext& context) {
  v1::NeuronContext proto;
  proto.set_input_index(static_cast<int32_t>(context.text));
  proto.set_position(static_cast<int32_t>(context.position));
  proto.set_activation(context.activation);
  proto.mutable_token_ids()->Assign(context.token_ids.begin(), context.token_ids.end());
  proto.set_center(static_cast<int32_t>(context.center));
  proto.set_text(context.shown);
  proto.mutable_activations()->Assign(context.activations.begin(), context.activations.end());
  return proto;
}

}  // namespace

absl::Status NeuronService::TopContexts(const rpc::CallContext& context,
                                        const v1::TopContextsRequest& request,
                                        v1::TopContextsResponse* response) {
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfName("model", request.model(), *models_));
  VS_RETURN_IF_ERROR(model->engine->CheckAccepts());
  VS_ASSIGN_OR_RETURN(studies::ContextsPlan plan, PlanOf(context, request, model->architecture));
  VS_ASSIGN_OR_RETURN(ResponseReader reader,
                      ResponseReader::Open(request.responses(), request.artifact(), kMostTexts,
                                           context, *model, *store_, *blobs_));
  VS_RETURN_IF_ERROR(HoldContexts(context, plan, reader.count()));
  studies::ContextSearch search(model->engine.get(), &model->text->tokenizer(), std::move(plan));
  TextsTogether together(&context, &search, &reader);
  while (true) {
    VS_ASSIGN_OR_RETURN(const std::vector<studies::NumberedText> texts, together.Next());
    if (texts.empty()) break;
    const absl::Status searched = search.Add(texts, context.cancellation);
    if (!searched.ok()) {
      VS_RETURN_IF_ERROR(context.Why());
      return searched;
    }
  }
  for (int i = 0; i < request.neurons_size(); ++i) {
    v1::NeuronContexts& contexts = *response->add_neurons();
    *contexts.mutable_neuron() = request.neurons(i);
    for (const studies::NeuronContext& one : search.contexts()[static_cast<size_t>(i)]) {
      *contexts.add_contexts() = ContextToProto(one);
    }
  }
  response->mutable_usage()->set_prompt_tokens(search.prompt_tokens());
  response->mutable_usage()->set_cached_prompt_tokens(search.cached_prompt_tokens());
  return CheckReplySize(static_cast<int64_t>(response->ByteSizeLong()), "the contexts",
                        kSmallerContexts);
}

}  // namespace valuescope::services
