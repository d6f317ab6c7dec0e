// The kind "measure_texts": what texts are like, by condition (studies/measure_texts.h). A unit is
// a text, which is looked at alone and, where its perplexity is asked for, run once behind its
// prompt; what all of them are like together is found at the end, from the tokens that the work
// has. Partial: what is known of each text (SavedTextsFacts).
//
// Left by a job: "summary", JSON with the measures and the provenance, nothing of time or place.
#include "studies/measure_texts.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "kinds/kinds.h"
#include "kinds/measured_texts.h"
#include "kinds/response_work.h"
#include "kinds/texts_work.h"
#include "services/idempotency.h"
#include "services/prompt_codec.h"
#include "services/request_codec.h"
#include "services/result_codec.h"
#include "studies/message_json.h"
#include "studies/text_checks.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using Request = v1::MeasureTextsRequest;

constexpr char kName[] = "measure_texts";
constexpr int64_t kTextsPerChunk = 64;
constexpr int64_t kTextsPerShard = 32 * kTextsPerChunk;

analysis::TokenSpan IdsOf(const SavedText& text) {
  return {text.ids().data(), static_cast<size_t>(text.ids_size())};
}

// What is known of the texts, and what the measures of all together take.
int64_t BytesOf(const SavedTexts& texts) {
  constexpr int64_t kOfAText = sizeof(studies::MeasuredText) + 2 * sizeof(SavedTextFacts);
  int64_t tokens = 0;
  for (const SavedText& text : texts.texts()) tokens += text.ids_size();
  return kOfAText * texts.texts_size() + analysis::DiversityBytes(texts.texts_size(), tokens);
}

// To run a text behind its prompt; the tenant and whether it is in the background are the caller's
// to set.
engine::Request ScoreOf(const SavedText& text) {
  engine::Request request;
  request.prompt.assign(text.prompt().begin(), text.prompt().end());
  request.given_response.assign(text.ids().begin(), text.ids().end());
  request.score_response = true;
  return request;
}

// --- The work ------------------------------------------------------------------------------------

class MeasuringWork : public TextsWork<SavedTextsFacts, &SavedTextsFacts::texts_size> {
 public:
  MeasuringWork(ResponseInputs inputs, studies::TextChecks checks, engine::KeptCaptures memory)
      : TextsWork(std::move(inputs), kTextsPerChunk),
        checks_(std::move(checks)),
        memory_(std::move(memory)) {}

 protected:
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        Units& sums) override {
    std::vector<double> logprobs(static_cast<size_t>(units.size()), 0);
    if (of().perplexity()) VS_RETURN_IF_ERROR(Score(units, cancellation, logprobs));
    for (int64_t unit = units.first; unit < units.end; ++unit) {
      VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
      const SavedText& measured = text(unit);
      SavedTextFacts& facts = *sums.saved.add_texts();
      facts.set_logprob(logprobs[static_cast<size_t>(unit - units.first)]);
      if (measured.ids().empty()) continue;
      facts.set_coherent(analysis::IsCoherent(IdsOf(measured)));
      VS_ASSIGN_OR_RETURN(const bool refuses, checks_.Refuses(measured.text()));
      facts.set_refuses(refuses);
      VS_ASSIGN_OR_RETURN(const uint64_t followed, checks_.Followed(measured.text()));
      facts.set_followed(followed);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(
      const Units& whole, const Cancellation& cancellation) override {
    std::vector<studies::MeasuredText> texts;
    texts.reserve(static_cast<size_t>(whole.saved.texts_size()));
    for (int i = 0; i < whole.saved.texts_size(); ++i) {
      const SavedText& measured = text(i);
      const SavedTextFacts& facts = whole.saved.texts(i);
      texts.push_back({.condition = &measured.condition(),
                       .ids = IdsOf(measured),
                       .coherent = facts.coherent(),
                       .refuses = facts.refuses(),
                       .followed = facts.followed(),
                       .logprob = facts.logprob()});
    }
    VS_ASSIGN_OR_RETURN(v1::MeasureTextsResponse result,
                        studies::MeasureTexts(of(), texts, cancellation));
    return std::make_unique<MeasuresOutcome>(std::move(result), inputs_.record.provenance());
  }

 private:
  const Request& of() const { return inputs_.record.measure_texts(); }

  // Log-probabilities of the texts behind their prompts, without steering.
  absl::Status Score(const jobs::UnitRange& units, const Cancellation& cancellation,
                     std::vector<double>& logprobs) {
    VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
    std::vector<engine::Request> requests;
    std::vector<size_t> places;
    for (int64_t unit = units.first; unit < units.end; ++unit) {
      const SavedText& measured = text(unit);
      if (measured.ids().empty()) continue;
      engine::Request& request = requests.emplace_back(ScoreOf(measured));
      request.tenant = inputs_.tenant;
      request.background = inputs_.background();
      places.push_back(static_cast<size_t>(unit - units.first));
    }
    VS_ASSIGN_OR_RETURN(const std::vector<engine::Completion> completions,
                        engine::RunAll(*model->engine, std::move(requests), cancellation));
    for (size_t i = 0; i < completions.size(); ++i) {
      logprobs[places[i]] = services::SumOfLogprobs(completions[i]);
      services::AddUsage(completions[i], usage_);
    }
    return absl::OkStatus();
  }

  const studies::TextChecks checks_;
  const engine::KeptCaptures memory_;
};

// --- The request ---------------------------------------------------------------------------------

// Texts as the work has them, each checked at once.
class TextReader {
 public:
  TextReader(const Request& request, const engine::ServedModel& model,
             const rpc::CallContext& context)
      : with_prompts_(request.perplexity()),
        model_(model),
        context_(context),
        options_{.now = absl::Now()} {}

  absl::Status Add(const std::string& place, const v1::LabelledResponse& given) {
    SavedText& text = *texts_.add_texts();
    text.set_condition(given.condition());
    VS_ASSIGN_OR_RETURN(std::vector<int32_t> ids, IdsOfResponse(place, given, text));
    studies::TrimEnd({.end_of_turn = model_.text->eos_ids(), .include_end_of_turn = false}, ids);
    text.mutable_ids()->Assign(ids.begin(), ids.end());
    if (given.response().has_text()) {
      text.set_text(given.response().text());
    } else {
      VS_ASSIGN_OR_RETURN(*text.mutable_text(),
                          model_.text->tokenizer().Decode(ids, /*skip_special_tokens=*/true));
    }
    num_tokens_ += text.prompt_size() + text.ids_size();
    digest_.Update(Sha256Hex(services::DeterministicBytes(text)));
    VS_RETURN_IF_ERROR(context_.Hold(static_cast<int64_t>(text.SpaceUsedLong())));
    return CheckRuns(place, text);
  }

  bool rendered_chat() const { return rendered_chat_; }
  int64_t num_tokens() const { return num_tokens_; }
  std::string Digest() { return digest_.HexDigest(); }
  SavedTexts Take() { return std::move(texts_); }

 private:
  // And those of the prompt, where they are needed.
  absl::StatusOr<std::vector<int32_t>> IdsOfResponse(const std::string& place,
                                                     const v1::LabelledResponse& given,
                                                     SavedText& text) {
    if (!with_prompts_) {
      return services::ResponseFromProto(absl::StrCat(place, ".response"), given.response(),
                                         model_);
    }
    VS_ASSIGN_OR_RETURN(services::TokenisedResponse tokenised,
                        services::TokeniseResponse(place, given, model_, options_));
    rendered_chat_ |= tokenised.rendered_chat;
    text.mutable_prompt()->Assign(tokenised.response.prompt.begin(),
                                  tokenised.response.prompt.end());
    return std::move(tokenised.response.response);
  }

  // What the engine has to say of a text depends on its length.
  absl::Status CheckRuns(const std::string& place, const SavedText& text) {
    if (!with_prompts_ || text.ids().empty()) return absl::OkStatus();
    if (!checked_.insert({text.prompt_size(), text.ids_size()}).second) return absl::OkStatus();
    const absl::Status status = model_.engine->Check(ScoreOf(text));
    return InField(place, WithFieldRenamed(status, "given_response", "response"));
  }

  const bool with_prompts_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const services::PromptOptions options_;
  SavedTexts texts_;
  std::set<std::pair<int, int>> checked_;
  int64_t num_tokens_ = 0;
  bool rendered_chat_ = false;
  Sha256 digest_;
};

class MeasureTextsKind
    : public TextsKind<Request, v1::MeasureTextsResponse, MeasuringWork, MeasuresOutcome> {
 public:
  explicit MeasureTextsKind(const Sources& sources)
      : TextsKind(sources, SavedWork::kMeasureTexts) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "texts"; }

 protected:
  absl::StatusOr<std::unique_ptr<jobs::Work>> OpenWork(ResponseInputs inputs) const override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    return MeasuringWorkOf(std::move(inputs), *model, /*can_wait=*/false);
  }

  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_ASSIGN_OR_RETURN(Request filled,
                        studies::WithDefaults(request, model->architecture.vocabulary));
    VS_RETURN_IF_ERROR(studies::TextChecks::Of(filled).status());
    TextReader reader(request, *model, context);
    VS_RETURN_IF_ERROR(Read(request, context, options, resolved.used, reader));
    resolved.used[studies::kResponsesInput] = reader.Digest();
    ResponseInputs inputs =
        InputsOfTexts(reader.Take(), kTextsPerShard,
                      RecordOf(*model, request.display_name(), options), model, context, sources_);
    SavedWork& record = inputs.record;
    *record.mutable_provenance() =
        ProvenanceOfMeasures(request, *model, reader.rendered_chat(), resolved.used);
    *record.mutable_measure_texts() = std::move(filled);
    if (!options.at_once) VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    resolved.estimate =
        EstimateOfTexts(request, *model, reader.num_tokens(), record.num_responses());
    resolved.needs = inputs.needs();
    VS_ASSIGN_OR_RETURN(resolved.work,
                        MeasuringWorkOf(std::move(inputs), *model, /*can_wait=*/!options.at_once));
    return resolved;
  }

 private:
  static v1::Provenance ProvenanceOfMeasures(const Request& request,
                                             const engine::ServedModel& model, bool rendered_chat,
                                             const services::UsedResources& used) {
    v1::Provenance provenance = studies::ProvenanceOf(model, rendered_chat);
    *provenance.mutable_inputs() = services::InputsOf(used, request.artifact());
    provenance.set_options(studies::RecordOfRequest(
        request, {"model", "responses", "artifact", "seed", "display_name"}));
    provenance.add_seeds(request.seed());
    return provenance;
  }

  static services::WorkEstimate EstimateOfTexts(const Request& request,
                                                const engine::ServedModel& model,
                                                int64_t num_tokens, int64_t num_texts) {
    constexpr int64_t kBytesOfSummary = 1 << 14;
    return EstimateOf(model, request.perplexity() ? num_tokens : 0,
                      request.perplexity() ? num_texts : 0, kBytesOfSummary);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<jobs::Work>> MeasuringWorkOf(ResponseInputs inputs,
                                                            const engine::ServedModel& model,
                                                            bool can_wait) {
  VS_ASSIGN_OR_RETURN(studies::TextChecks checks,
                      studies::TextChecks::Of(inputs.record.measure_texts()));
  VS_ASSIGN_OR_RETURN(engine::KeptCaptures memory,
                      KeptFor(*model.engine, BytesOf(*inputs.texts), can_wait));
  return std::make_unique<MeasuringWork>(std::move(inputs), std::move(checks), std::move(memory));
}

std::unique_ptr<services::Kind> MeasureTexts(const Sources& sources) {
  return std::make_unique<MeasureTextsKind>(sources);
}

}  // namespace valuescope::kinds
