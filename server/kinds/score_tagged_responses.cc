// The kind "score_tagged_responses": how likely a model finds responses that speak for or against
// values. A form is a wording of the user's turn.
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "analysis/tagged_responses.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/evaluation_kind.h"
#include "kinds/evaluation_request.h"
#include "kinds/evaluation_work.h"
#include "kinds/kinds.h"
#include "services/request_codec.h"
#include "services/user_turns.h"
#include "studies/distinct_elements.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using Request = v1::ScoreTaggedResponsesRequest;
using Response = v1::ScoreTaggedResponsesResponse;
using Outcome = EvaluationOutcome<Response>;

constexpr char kName[] = "score_tagged_responses";
constexpr char kQueryPlace[] = "{query}";
constexpr int kMostTemplates = 32;
constexpr size_t kMostValueBytes = 256;

// --- The request ---------------------------------------------------------------------------------

absl::StatusOr<std::vector<std::string>> TemplatesOf(const Request& request,
                                                     const engine::ServedModel& model) {
  if (request.templates_size() > kMostTemplates) {
    return OutOfRange("templates", request.templates_size(), 1, kMostTemplates);
  }
  for (int i = 0; i < request.templates_size(); ++i) {
    VS_RETURN_IF_ERROR(CheckTemplate(absl::StrCat("templates[", i, "]"), request.templates(i),
                                     {kQueryPlace}, model));
  }
  VS_RETURN_IF_ERROR(studies::CheckDistinct("templates", request.templates(),
                                            [](const std::string& wording) { return wording; }));
  if (request.templates().empty()) return std::vector<std::string>{kQueryPlace};
  return std::vector<std::string>(request.templates().begin(), request.templates().end());
}

// Whether a weight counts.
bool Counts(double weight, double min_weight) {
  return weight != 0 && std::abs(weight) >= min_weight;
}

// Responses as they are added.
class TaggedItems {
 public:
  TaggedItems(std::vector<std::string> templates, double min_weight,
              const engine::ServedModel& model, EvaluationWriter& writer)
      : templates_(std::move(templates)), min_weight_(min_weight), model_(model), writer_(writer) {}

  absl::Status Add(const GivenPlace& place, const v1::TaggedResponse& response) {
    for (const auto& [name, text] :
         {std::pair<const char*, const std::string&>{"query", response.query()},
          {"response", response.response()}}) {
      if (text.empty()) return place.Invalid(name, "must not be empty");
      VS_RETURN_IF_ERROR(place.Of(services::CheckIsText(place.field, text, model_)));
    }
    VS_RETURN_IF_ERROR(AddWeights(place, response));
    SavedItem saved;
    v1::TaggedResponse& kept = *saved.mutable_tagged_response();
    VS_ASSIGN_OR_RETURN(*kept.mutable_id(), ids_.Add(place, response.id(), ids_.count() + 1));
    *kept.mutable_weights() = response.weights();
    VS_RETURN_IF_ERROR(AddContinuation(place, response.response(), model_, saved));
    std::vector<std::string> turns;
    for (const std::string& wording : templates_) {
      turns.push_back(absl::StrReplaceAll(wording, {{kQueryPlace, response.query()}}));
    }
    const AskingShape shape = ShapeOfContinuations(saved);
    return writer_.Add(place, turns, /*answer_prefix=*/"", shape, std::move(saved));
  }

  // INVALID_ARGUMENT where a value has no weight that counts.
  absl::Status CheckWeights(absl::string_view field) const {
    if (counts_.empty()) return InvalidField(field, "must have weights");
    for (const auto& [value, count] : counts_) {
      if (count > 0) continue;
      return InvalidField("min_weight", absl::StrCat("leaves the value `", value,
                                                     "` without any weight other than 0"));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status AddWeights(const GivenPlace& place, const v1::TaggedResponse& response) {
    std::set<std::string> values;
    for (const v1::ValueWeight& weight : response.weights()) {
      if (weight.value().empty() || weight.value().size() > kMostValueBytes) {
        return place.Invalid("weights",
                             absl::StrCat("must have values of 1 to ", kMostValueBytes, " bytes"));
      }
      if (!values.insert(weight.value()).second) {
        return place.Invalid("weights", absl::StrCat("has `", weight.value(), "` twice"));
      }
      if (!std::isfinite(weight.weight())) {
        return place.Invalid("weights", "must be finite numbers");
      }
      counts_[weight.value()] += Counts(weight.weight(), min_weight_);
    }
    return absl::OkStatus();
  }

  const std::vector<std::string> templates_;
  const double min_weight_;
  const engine::ServedModel& model_;
  EvaluationWriter& writer_;
  ItemIds ids_;
  std::map<std::string, int64_t> counts_;  // weights that count, by value
};

// --- Results -------------------------------------------------------------------------------------

// Values in the order in which they first occur.
std::vector<std::string> ValuesOf(const SavedItems& items) {
  std::vector<std::string> values;
  std::set<std::string> seen;
  for (const SavedItem& item : items.items()) {
    for (const v1::ValueWeight& weight : item.tagged_response().weights()) {
      if (seen.insert(weight.value()).second) values.push_back(weight.value());
    }
  }
  return values;
}

class TaggedWork : public EvaluationWork {
 public:
  using EvaluationWork::EvaluationWork;

 protected:
  absl::StatusOr<std::vector<Answer>> Ask(const engine::ServedModel& model,
                                          std::vector<Asking> askings,
                                          const Cancellation& cancellation,
                                          v1::Usage& usage) const override {
    return ScoreContinuations(model, std::move(askings), cancellation, usage);
  }

  int NumbersOf(const SavedItem&) const override { return 1; }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishAnswers(
      const SavedAnswers& answers) const override {
    const std::vector<std::string> values = ValuesOf(inputs_.items);
    Response response;
    for (int c = 0; c < inputs_.how().conditions_size(); ++c) {
      *response.add_results() = ResultOf(answers, c, values);
    }
    *response.mutable_provenance() = inputs_.record.provenance();
    return std::make_unique<Outcome>(std::move(response), "responses");
  }

 private:
  v1::TaggedResult ResultOf(const SavedAnswers& answers, int condition,
                            const std::vector<std::string>& values) const {
    v1::TaggedResult result;
    result.set_condition(inputs_.how().conditions(condition).name());
    std::vector<analysis::TaggedLogprob> tagged;
    for (int i = 0; i < answers.items_size(); ++i) {
      const SavedItem& item = inputs_.items.items(i);
      v1::TaggedScore& score = *result.add_responses();
      score.set_response(item.tagged_response().id());
      score.set_num_tokens(item.continuations(0).ids_size());
      SetLogprob(answers.items(i), condition, score);
      tagged.push_back(
          {.logprob = score.logprob(), .weights = WeightsOf(item.tagged_response(), values)});
    }
    const std::vector<analysis::TaggedValue> scores =
        analysis::ScoreTaggedResponses(tagged, static_cast<int>(values.size()));
    for (size_t i = 0; i < values.size(); ++i) {
      v1::ValueScore& value = *result.add_values();
      value.set_value(values[i]);
      value.set_score(scores[i].score);
      value.set_centred(scores[i].centred);
      value.set_num_items(scores[i].num_responses);
    }
    *result.mutable_receipts() = answers.receipts(condition).receipts();
    return result;
  }

  // Over the wordings.
  void SetLogprob(const SavedReadings& item, int condition, v1::TaggedScore& score) const {
    const int wordings = inputs_.how().num_forms();
    std::vector<double> logprobs;
    for (int wording = 0; wording < wordings; ++wording) {
      logprobs.push_back(item.readings(condition * wordings + wording).numbers(0));
    }
    const analysis::MeanAndSpread of = analysis::MeanAndSpreadOf(logprobs);
    score.set_logprob(of.mean);
    if (wordings > 1) score.set_template_spread(of.spread);
  }

  std::vector<std::pair<int, double>> WeightsOf(const v1::TaggedResponse& response,
                                                const std::vector<std::string>& values) const {
    const double min_weight = inputs_.record.score_tagged_responses().min_weight();
    std::vector<std::pair<int, double>> weights;
    for (const v1::ValueWeight& weight : response.weights()) {
      if (!Counts(weight.weight(), min_weight)) continue;
      const auto place = std::find(values.begin(), values.end(), weight.value());
      weights.emplace_back(static_cast<int>(place - values.begin()), weight.weight());
    }
    return weights;
  }
};

class ScoreTaggedResponsesKind : public EvaluationKind<Request, Response, TaggedWork> {
 public:
  explicit ScoreTaggedResponsesKind(const Sources& sources)
      : EvaluationKind(sources, SavedWork::kScoreTaggedResponses) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "responses"; }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_ASSIGN_OR_RETURN(std::vector<std::string> templates, TemplatesOf(request, *model));
    if (!(request.min_weight() >= 0) || !std::isfinite(request.min_weight())) {
      return InvalidField("min_weight", "must be a finite number from 0 on");
    }
    services::UsedResources used;
    VS_ASSIGN_OR_RETURN(
        EvaluationWriter writer,
        EvaluationWriter::Create(request.conditions(), static_cast<int>(templates.size()), model,
                                 context, options, sources_, used));
    TaggedItems items(std::move(templates), request.min_weight(), *model, writer);
    VS_RETURN_IF_ERROR(ForEachItem<v1::TaggedResponse>(
        "responses", request.responses(), request.artifact(), /*booleans=*/{}, context, sources_,
        used, [&](const GivenPlace& place, const v1::TaggedResponse& response) {
          return items.Add(place, response);
        }));
    VS_RETURN_IF_ERROR(items.CheckWeights(request.artifact().empty() ? "responses" : "artifact"));
    constexpr int64_t kBytesOfAScore = 96;
    VS_ASSIGN_OR_RETURN(EvaluationWriter::Written written,
                        writer.Finish(request.display_name(), kBytesOfAScore));
    written.inputs.record.mutable_score_tagged_responses()->set_min_weight(request.min_weight());
    return ResolvedOf(request, std::move(written), "responses", std::move(used));
  }

  absl::StatusOr<std::unique_ptr<TaggedWork>> WorkOf(EvaluationInputs inputs,
                                                     const engine::ServedModel&,
                                                     engine::KeptCaptures memory) const override {
    for (const SavedItem& item : inputs.items.items()) {
      if (item.continuations_size() != 1) return SpecDamaged();
    }
    return std::make_unique<TaggedWork>(std::move(inputs), std::move(memory));
  }
};

}  // namespace

std::unique_ptr<services::Kind> ScoreTaggedResponses(const Sources& sources) {
  return std::make_unique<ScoreTaggedResponsesKind>(sources);
}

}  // namespace valuescope::kinds
