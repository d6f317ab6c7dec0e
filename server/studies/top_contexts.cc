#include "studies/top_contexts.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "text/streaming_decoder.h"

namespace valuescope::studies {
namespace {

int64_t NumTokens(const NumberedText& text) {
  return static_cast<int64_t>(text.tokens.prompt.size() + text.tokens.response.size());
}

int32_t TokenAt(const NumberedText& text, int64_t position) {
  const auto place = static_cast<size_t>(position);
  const size_t prompt = text.tokens.prompt.size();
  return place < prompt ? text.tokens.prompt[place] : text.tokens.response[place - prompt];
}

// A text decoded as a whole, so that what a token shows depends on its neighbours as it should.
class DecodedText {
 public:
  static absl::StatusOr<DecodedText> Of(const NumberedText& text,
                                        const text::Tokenizer& tokenizer) {
    text::StreamingDecoder decoder(tokenizer, /*skip_special_tokens=*/false);
    DecodedText decoded;
    for (int64_t position = 0; position < NumTokens(text); ++position) {
      VS_ASSIGN_OR_RETURN(const std::string piece,
                          decoder.Push(TokenAt(text, position), &decoded.stretches_));
      decoded.text_ += piece;
    }
    VS_ASSIGN_OR_RETURN(const std::string rest, decoder.Flush(&decoded.stretches_));
    decoded.text_ += rest;
    return decoded;
  }

  // The characters that tokens first .. last have a part in.
  std::string Between(int64_t first, int64_t last) const {
    size_t begin = 0, end = 0;
    for (const text::Stretch& stretch : stretches_) {
      if (static_cast<int64_t>(stretch.last_token) < first) begin += stretch.size;
      if (static_cast<int64_t>(stretch.first_token) <= last) end += stretch.size;
    }
    return text_.substr(begin, end - std::min(begin, end));
  }

 private:
  std::string text_;
  std::vector<text::Stretch> stretches_;
};

// The first position of the largest activation among the tokens to search. What is no number is
// never the largest.
std::optional<int64_t> Largest(std::span<const float> activations,
                               const engine::TokenScope& scope) {
  std::optional<size_t> best;
  for (size_t i = 0; i < activations.size(); ++i) {
    if (!scope.Contains(static_cast<int64_t>(i)) || std::isnan(activations[i])) continue;
    if (!best || activations[i] > activations[*best]) best = i;
  }
  return best;
}

// Where among those kept, largest first, an activation of a later text belongs.
size_t RankOf(float activation, const std::vector<NeuronContext>& kept) {
  const auto place = std::upper_bound(
      kept.begin(), kept.end(), activation,
      [](float value, const NeuronContext& context) { return value > context.activation; });
  return static_cast<size_t>(place - kept.begin());
}

}  // namespace

ContextSearch::ContextSearch(engine::Engine* engine, const text::Tokenizer* tokenizer,
                             ContextsPlan plan)
    : engine_(engine),
      tokenizer_(tokenizer),
      plan_(std::move(plan)),
      contexts_(plan_.neurons.size()) {
  std::map<int, std::set<int64_t>> by_layer;
  for (const NeuronPlace& neuron : plan_.neurons) by_layer[neuron.layer].insert(neuron.index);
  tap_.site = model::Site::kMlpNeurons;
  // The window may reach beyond the tokens that are searched.
  tap_.tokens = {.kind = engine::TokenKind::kAll, .positions = {}};
  std::map<std::pair<int, int64_t>, Column> places;
  for (const auto& [layer, indices] : by_layer) {
    size_t column = 0;
    for (const int64_t index : indices) {
      places[{layer, index}] = {.capture = tap_.layers.size(), .column = column++};
    }
    tap_.layers.push_back(layer);
    tap_.columns.emplace_back(std::vector<int64_t>(indices.begin(), indices.end()));
  }
  for (const NeuronPlace& neuron : plan_.neurons) {
    columns_.push_back(places.at({neuron.layer, neuron.index}));
  }
}

int64_t ContextSearch::CaptureBytes(const NumberedText& text) const {
  return NumTokens(text) * static_cast<int64_t>(plan_.neurons.size() * sizeof(float));
}

absl::StatusOr<std::optional<engine::TokenScope>> ContextSearch::ScopeOf(
    const NumberedText& text) const {
  const engine::SequenceExtent extent{.prompt = static_cast<int64_t>(text.tokens.prompt.size()),
                                      .most = NumTokens(text)};
  const auto scope = engine::TokenScope::Resolve(plan_.tokens, extent, /*for_tap=*/true);
  if (scope.ok()) return *scope;
  const ErrorDetails details = DetailsOf(scope.status());
  if (details.reason == "TAP_READS_NOTHING") return std::nullopt;
  return InvalidField(absl::StrCat("tokens.", details.field),
                      absl::StrCat(details.description, " (of text ", text.number, ")"),
                      details.reason);
}

engine::Request ContextSearch::RequestOf(const NumberedText& text) const {
  engine::Request request;
  request.tenant = plan_.tenant;
  request.prompt = text.tokens.prompt;
  request.given_response = text.tokens.response;
  request.taps = {tap_};
  return request;
}

absl::Status ContextSearch::Add(std::span<const NumberedText> texts,
                                const Cancellation& cancellation) {
  std::vector<std::pair<const NumberedText*, engine::TokenScope>> searched;
  std::vector<engine::Request> requests;
  for (const NumberedText& text : texts) {
    VS_ASSIGN_OR_RETURN(auto scope, ScopeOf(text));
    if (!scope) continue;
    searched.emplace_back(&text, *std::move(scope));
    requests.push_back(RequestOf(text));
  }
  VS_ASSIGN_OR_RETURN(std::vector<engine::Completion> completions,
                      engine::RunAll(*engine_, std::move(requests), cancellation));
  for (size_t i = 0; i < searched.size(); ++i) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    const auto& [text, scope] = searched[i];
    VS_RETURN_IF_ERROR(CheckShape(*text, completions[i]));
    VS_RETURN_IF_ERROR(Search(*text, scope, completions[i]));
    completions[i].captures.clear();
    prompt_tokens_ += completions[i].prompt_tokens;
    cached_prompt_tokens_ += completions[i].cached_prompt_tokens;
  }
  return absl::OkStatus();
}

absl::Status ContextSearch::CheckShape(const NumberedText& text,
                                       const engine::Completion& completion) const {
  bool fits = completion.captures.size() == tap_.layers.size();
  for (size_t i = 0; fits && i < tap_.layers.size(); ++i) {
    const auto columns = static_cast<int64_t>(tap_.columns[i].size());
    fits = completion.captures[i].tensor.NumElements() == NumTokens(text) * columns;
  }
  if (fits) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kInternal, "CAPTURE_SHAPE",
                         "the engine returned a capture of another shape than asked for");
}

absl::Status ContextSearch::Search(const NumberedText& text, const engine::TokenScope& scope,
                                   const engine::Completion& completion) {
  std::optional<DecodedText> decoded;
  std::vector<float> activations(static_cast<size_t>(NumTokens(text)));
  for (size_t neuron = 0; neuron < columns_.size(); ++neuron) {
    const auto [capture, column] = columns_[neuron];
    const auto values = completion.captures[capture].tensor.As<float>();  // [tokens, width]
    const size_t width = tap_.columns[capture].size();
    for (size_t i = 0; i < activations.size(); ++i) activations[i] = values[i * width + column];
    const std::optional<int64_t> best = Largest(activations, scope);
    if (!best) continue;
    std::vector<NeuronContext>& kept = contexts_[neuron];
    const size_t rank = RankOf(activations[static_cast<size_t>(*best)], kept);
    if (rank >= static_cast<size_t>(plan_.top_k)) continue;
    if (!decoded) {
      VS_ASSIGN_OR_RETURN(decoded, DecodedText::Of(text, *tokenizer_));
    }
    NeuronContext context = ContextAt(text, *best, activations);
    const int64_t first = context.position - context.center;
    context.shown =
        decoded->Between(first, first + static_cast<int64_t>(context.token_ids.size()) - 1);
    if (kept.size() == static_cast<size_t>(plan_.top_k)) kept.pop_back();
    kept.insert(kept.begin() + static_cast<std::ptrdiff_t>(rank), std::move(context));
  }
  return absl::OkStatus();
}

// Without its text.
NeuronContext ContextSearch::ContextAt(const NumberedText& text, int64_t position,
                                       std::span<const float> activations) const {
  const int64_t first = std::max<int64_t>(0, position - plan_.window);
  const int64_t end = std::min(NumTokens(text), position + plan_.window + 1);
  NeuronContext context{.text = text.number,
                        .position = position,
                        .activation = activations[static_cast<size_t>(position)],
                        .center = position - first,
                        .token_ids = {},
                        .activations = {activations.begin() + first, activations.begin() + end},
                        .shown = {}};
  for (int64_t place = first; place < end; ++place) {
    context.token_ids.push_back(TokenAt(text, place));
  }
  return context;
}

}  // namespace valuescope::studies
