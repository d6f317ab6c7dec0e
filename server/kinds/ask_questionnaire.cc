// The kind "ask_questionnaire": how much a model says that something is like it, item by item. A
// form is an order of the options; a reading holds the probabilities of the labels, in the order of
// the request's options, and what the model says in words where that is asked for.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "analysis/questionnaire.h"
#include "base/status_macros.h"
#include "kinds/evaluation_kind.h"
#include "kinds/evaluation_request.h"
#include "kinds/evaluation_work.h"
#include "kinds/kinds.h"
#include "kinds/questionnaire_request.h"
#include "services/judges.h"
#include "services/label_reading.h"
#include "services/request_codec.h"
#include "text/named_option.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using Request = v1::AskQuestionnaireRequest;
using Response = v1::AskQuestionnaireResponse;
using Outcome = EvaluationOutcome<Response>;

constexpr char kName[] = "ask_questionnaire";
// Above this the answers tell little of the items, and the result warns.
constexpr double kMostOfOneLabel = .9;
// A token's text, rarely more.
constexpr int64_t kBytesPerToken = 8;

// --- Results -------------------------------------------------------------------------------------

// What readings come to. `namers` has one a form.
class Scoring {
 public:
  Scoring(const SavedQuestionnaire& questionnaire, const std::vector<text::NamedOption>& namers)
      : questionnaire_(questionnaire),
        namers_(namers),
        scale_{.least = questionnaire.options().begin()->score(),
               .most = questionnaire.options().rbegin()->score()} {
    for (const v1::AnswerOption& option : questionnaire.options()) {
      numbers_.push_back(option.score());
    }
  }

  // Of one item, its readings one a form. What the labels say is added to `labels`.
  absl::StatusOr<v1::ItemScore> ScoreOf(const v1::QuestionnaireItem& item,
                                        const SavedReadings& readings, int first_reading,
                                        std::vector<std::vector<double>>& labels) const {
    v1::ItemScore score;
    score.set_item(item.id());
    score.set_value(item.value());
    std::vector<double> scores, text_scores;
    for (int form = 0; form < questionnaire_.reversed_size(); ++form) {
      const SavedReading& reading = readings.readings(first_reading + form);
      VS_ASSIGN_OR_RETURN(*score.add_answers(), AnswerOf(reading, form));
      const v1::QuestionnaireAnswer& answer = *score.answers().rbegin();
      labels.emplace_back(reading.numbers().begin(), reading.numbers().end());
      scores.push_back(answer.score());
      if (answer.has_text_option()) {
        text_scores.push_back(numbers_[static_cast<size_t>(answer.text_option())]);
      }
    }
    score.set_score(analysis::ItemScoreOf(scores, item.reverse(), scale_));
    if (scores.size() == 2) score.set_order_spread((scores[0] - scores[1]) / 2);
    if (text_scores.size() == scores.size()) {
      score.set_text_score(analysis::ItemScoreOf(text_scores, item.reverse(), scale_));
    }
    return score;
  }

 private:
  // The option that a label stands for, or the label of an option.
  int Across(int index, int form) const {
    return questionnaire_.reversed(form) ? questionnaire_.options_size() - 1 - index : index;
  }

  absl::StatusOr<v1::QuestionnaireAnswer> AnswerOf(const SavedReading& reading, int form) const {
    v1::QuestionnaireAnswer answer;
    answer.set_reversed(questionnaire_.reversed(form));
    std::vector<double> probabilities;
    for (int option = 0; option < questionnaire_.options_size(); ++option) {
      probabilities.push_back(reading.numbers(Across(option, form)));
    }
    answer.mutable_probabilities()->Assign(probabilities.begin(), probabilities.end());
    answer.set_score(analysis::ExpectedNumber(probabilities, numbers_));
    answer.set_label_mass(reading.mass());
    if (!reading.has_text()) return answer;
    answer.set_text(reading.text());
    VS_ASSIGN_OR_RETURN(const std::optional<int> label,
                        namers_[static_cast<size_t>(form)].In(reading.text()));
    if (label) answer.set_text_option(Across(*label, form));
    return answer;
  }

  const SavedQuestionnaire& questionnaire_;
  const std::vector<text::NamedOption>& namers_;
  const analysis::AnswerScale scale_;
  std::vector<double> numbers_;  // that the options count
};

void AddValues(v1::QuestionnaireResult& result) {
  std::vector<analysis::ItemOfValue> items;
  for (const v1::ItemScore& item : result.items()) {
    analysis::ItemOfValue& one = items.emplace_back();
    one.value = item.value();
    one.score = item.score();
    if (item.has_text_score()) one.text_score = item.text_score();
  }
  const analysis::QuestionnaireScores scores = analysis::ScoreQuestionnaire(items);
  result.set_mean(scores.mean);
  for (const analysis::ScoreOfValue& of : scores.values) {
    v1::ValueScore& value = *result.add_values();
    value.set_value(of.value);
    value.set_score(of.score);
    value.set_centred(of.centred);
    value.set_num_items(of.num_items);
    if (of.standard_error) value.set_standard_error(*of.standard_error);
    if (of.text_score) value.set_text_score(*of.text_score);
    value.set_num_text_items(of.num_text_items);
  }
}

// Of what stands in the answers alone.
void AddMeasures(const std::vector<std::vector<double>>& labels, v1::QuestionnaireResult& result) {
  double mass = 0;
  int unparsable = 0;
  for (const v1::ItemScore& item : result.items()) {
    for (const v1::QuestionnaireAnswer& answer : item.answers()) {
      mass += answer.label_mass();
      unparsable += answer.has_text() && !answer.has_text_option();
    }
  }
  result.set_label_mass(mass / static_cast<double>(labels.size()));
  result.set_num_unparsable(unparsable);
  result.set_most_frequent_share(analysis::MostFrequentShare(labels, labels.front().size()));
}

void Warn(Response& response) {
  for (const v1::QuestionnaireResult& result : response.results()) {
    if (result.label_mass() < services::kLeastAnswerMass) {
      response.add_warnings(absl::StrFormat(
          "condition `%s`: the labels have a probability of %.3f on average, so the model mostly "
          "says something else; tell it to answer by a label alone, or set answer_prefix",
          result.condition(), result.label_mass()));
    }
    if (result.most_frequent_share() > kMostOfOneLabel) {
      response.add_warnings(absl::StrFormat(
          "condition `%s`: one label is the likeliest in %.0f %% of the answers, whatever is asked",
          result.condition(), 100 * result.most_frequent_share()));
    }
  }
}

// --- The work ------------------------------------------------------------------------------------

class QuestionnaireWork : public EvaluationWork {
 public:
  QuestionnaireWork(EvaluationInputs inputs, engine::KeptCaptures memory,
                    services::LabelTokens labels, std::vector<text::NamedOption> namers)
      : EvaluationWork(std::move(inputs), std::move(memory)),
        labels_(std::move(labels)),
        namers_(std::move(namers)) {}

 protected:
  absl::StatusOr<std::vector<Answer>> Ask(const engine::ServedModel& model,
                                          std::vector<Asking> askings,
                                          const Cancellation& cancellation,
                                          v1::Usage& usage) const override {
    std::vector<services::LabelQuestion> questions;
    for (Asking& asking : askings) {
      if (of().max_answer_tokens() > 0) {
        asking.request.sampling = GreedySampling(of().max_answer_tokens());
      }
      questions.push_back({.request = std::move(asking.request), .labels = &labels_});
    }
    return AnswersOf(services::ReadLabels(*model.engine, std::move(questions), cancellation, usage),
                     /*with_text=*/of().max_answer_tokens() > 0);
  }

  int NumbersOf(const SavedItem&) const override { return of().options_size(); }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishAnswers(
      const SavedAnswers& answers) const override {
    const SavedEvaluation& how = inputs_.how();
    const Scoring scoring(of(), namers_);
    Response response;
    for (int c = 0; c < how.conditions_size(); ++c) {
      v1::QuestionnaireResult& result = *response.add_results();
      result.set_condition(how.conditions(c).name());
      std::vector<std::vector<double>> labels;
      for (int i = 0; i < answers.items_size(); ++i) {
        VS_ASSIGN_OR_RETURN(*result.add_items(),
                            scoring.ScoreOf(inputs_.items.items(i).questionnaire_item(),
                                            answers.items(i), c * how.num_forms(), labels));
      }
      AddValues(result);
      AddMeasures(labels, result);
      *result.mutable_receipts() = answers.receipts(c).receipts();
    }
    response.set_example_prompt(how.example_prompt());
    *response.mutable_provenance() = inputs_.record.provenance();
    Warn(response);
    return std::make_unique<Outcome>(std::move(response), "items");
  }

 private:
  const SavedQuestionnaire& of() const { return inputs_.record.ask_questionnaire(); }

  const services::LabelTokens labels_;
  const std::vector<text::NamedOption> namers_;  // one a form
};

// --- The request ---------------------------------------------------------------------------------

class AskQuestionnaireKind : public EvaluationKind<Request, Response, QuestionnaireWork> {
 public:
  explicit AskQuestionnaireKind(const Sources& sources)
      : EvaluationKind(sources, SavedWork::kAskQuestionnaire) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "items"; }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_ASSIGN_OR_RETURN(SavedQuestionnaire questionnaire, QuestionnaireOf(request, *model));
    VS_ASSIGN_OR_RETURN(const services::LabelTokens labels, LabelsOf(questionnaire, *model));
    const AskingShape shape = ShapeOf(labels, questionnaire.max_answer_tokens());
    services::UsedResources used;
    VS_ASSIGN_OR_RETURN(
        EvaluationWriter writer,
        EvaluationWriter::Create(request.conditions(), questionnaire.reversed_size(), model,
                                 context, options, sources_, used));
    VS_RETURN_IF_ERROR(
        AddItems(request, questionnaire, shape, *model, context, sources_, used, writer));
    constexpr int64_t kBytesOfAnAnswer = 96;
    VS_ASSIGN_OR_RETURN(
        EvaluationWriter::Written written,
        writer.Finish(request.display_name(),
                      kBytesOfAnAnswer +
                          static_cast<int64_t>(sizeof(double)) * questionnaire.options_size() +
                          kBytesPerToken * questionnaire.max_answer_tokens()));
    *written.inputs.record.mutable_ask_questionnaire() = std::move(questionnaire);
    return ResolvedOf(request, std::move(written), "items", std::move(used));
  }

  absl::StatusOr<std::unique_ptr<QuestionnaireWork>> WorkOf(
      EvaluationInputs inputs, const engine::ServedModel& model,
      engine::KeptCaptures memory) const override {
    const SavedQuestionnaire& of = inputs.record.ask_questionnaire();
    if (of.options().empty() || of.reversed_size() != inputs.how().num_forms()) {
      return SpecDamaged();
    }
    VS_ASSIGN_OR_RETURN(services::LabelTokens labels, LabelsOf(of, model));
    std::vector<text::NamedOption> namers;
    if (of.max_answer_tokens() > 0) {
      VS_ASSIGN_OR_RETURN(namers, NamersOf(of));
    }
    return std::make_unique<QuestionnaireWork>(std::move(inputs), std::move(memory),
                                               std::move(labels), std::move(namers));
  }
};

}  // namespace

std::unique_ptr<services::Kind> AskQuestionnaire(const Sources& sources) {
  return std::make_unique<AskQuestionnaireKind>(sources);
}

}  // namespace valuescope::kinds
