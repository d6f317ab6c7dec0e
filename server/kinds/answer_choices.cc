// The kind "answer_choices": multiple-choice questions, answered by the letter that the model would
// say, or by the choice that it finds likeliest as a continuation, a byte of it.
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "analysis/answered_choices.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/evaluation_kind.h"
#include "kinds/evaluation_request.h"
#include "kinds/evaluation_work.h"
#include "kinds/kinds.h"
#include "services/judges.h"
#include "services/label_reading.h"
#include "services/request_codec.h"
#include "services/user_turns.h"
#include "studies/confidence_interval.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using Request = v1::AnswerChoicesRequest;
using Response = v1::AnswerChoicesResponse;
using Outcome = EvaluationOutcome<Response>;
// Of the first letters, by how many they are.
using Letters = std::map<int, services::LabelTokens>;

constexpr char kName[] = "answer_choices";
constexpr char kQuestionPlace[] = "{question}", kChoicesPlace[] = "{choices}";
constexpr int kFewestChoices = 2, kMostChoices = 26;
constexpr int kDefaultBins = 10, kMostBins = 100;

bool ReadsLetters(const SavedChoices& choices) {
  return choices.reading() == v1::CHOICE_READING_LETTERS;
}

std::string LetterOf(int choice) { return std::string(1, static_cast<char>('A' + choice)); }

// Adds the first `count` letters where they are not there.
absl::Status AddLetters(int count, const engine::ServedModel& model, Letters& letters) {
  if (letters.contains(count)) return absl::OkStatus();
  std::vector<services::Spellings> labels;
  for (int choice = 0; choice < count; ++choice) labels.push_back({LetterOf(choice)});
  VS_ASSIGN_OR_RETURN(services::LabelTokens tokens, services::LabelTokens::Of(labels, model));
  letters.emplace(count, std::move(tokens));
  return absl::OkStatus();
}

// --- The request ---------------------------------------------------------------------------------

absl::StatusOr<SavedChoices> ChoicesOf(const Request& request, const engine::ServedModel& model) {
  if (!v1::ChoiceReading_IsValid(request.reading())) {
    return InvalidField("reading", "must be a CHOICE_READING_... of the contract");
  }
  SavedChoices choices;
  choices.set_reading(request.reading() == v1::CHOICE_READING_UNSPECIFIED
                          ? v1::CHOICE_READING_LETTERS
                          : request.reading());
  choices.set_calibration_bins(request.has_calibration_bins() ? request.calibration_bins()
                                                              : kDefaultBins);
  if (choices.calibration_bins() < 1 || choices.calibration_bins() > kMostBins) {
    return OutOfRange("calibration_bins", choices.calibration_bins(), 1, kMostBins);
  }
  if (!request.template_().empty()) {
    std::vector<std::string> places = {kQuestionPlace};
    if (ReadsLetters(choices)) places.push_back(kChoicesPlace);
    VS_RETURN_IF_ERROR(CheckTemplate("template", request.template_(), places, model));
  }
  VS_RETURN_IF_ERROR(CheckTemplate("answer_prefix", request.answer_prefix(), {}, model));
  return choices;
}

std::string TemplateOf(const Request& request, const SavedChoices& choices) {
  if (!request.template_().empty()) return request.template_();
  if (!ReadsLetters(choices)) return kQuestionPlace;
  return absl::StrCat(kQuestionPlace, "\n", kChoicesPlace);
}

// Questions as they are added.
class Questions {
 public:
  Questions(const Request& request, const SavedChoices& choices, const engine::ServedModel& model,
            EvaluationWriter& writer)
      : request_(request),
        choices_(choices),
        template_(TemplateOf(request, choices)),
        model_(model),
        writer_(writer) {}

  absl::Status Add(const GivenPlace& place, const v1::ChoiceQuestion& question) {
    VS_RETURN_IF_ERROR(Check(place, question));
    SavedItem saved;
    v1::ChoiceQuestion& kept = *saved.mutable_choice_question();
    kept = question;
    kept.clear_question();
    VS_ASSIGN_OR_RETURN(*kept.mutable_id(), ids_.Add(place, question.id(), ids_.count() + 1));
    VS_ASSIGN_OR_RETURN(const AskingShape shape, AddAnswers(place, question, saved));
    std::string listed;
    for (int choice = 0; choice < question.choices_size(); ++choice) {
      absl::StrAppend(&listed, choice == 0 ? "" : "\n", LetterOf(choice), ". ",
                      question.choices(choice));
    }
    const std::string turn = absl::StrReplaceAll(
        template_, {{kQuestionPlace, question.question()}, {kChoicesPlace, listed}});
    return writer_.Add(place, {turn}, request_.answer_prefix(), shape, std::move(saved));
  }

 private:
  absl::Status Check(const GivenPlace& place, const v1::ChoiceQuestion& question) const {
    if (question.question().empty()) return place.Invalid("question", "must not be empty");
    const int count = question.choices_size();
    if (count < kFewestChoices || count > kMostChoices) {
      return place.Invalid("choices", absl::StrCat("has ", count, ", allowed are ", kFewestChoices,
                                                   " to ", kMostChoices));
    }
    for (const std::string& choice : question.choices()) {
      if (choice.empty()) return place.Invalid("choices", "has one that is empty");
      VS_RETURN_IF_ERROR(place.Of(services::CheckIsText(place.field, choice, model_)));
    }
    if (question.answer() < 0 || question.answer() >= count) {
      return place.Invalid("answer",
                           absl::StrCat("is ", question.answer(), ", allowed are 0 to ", count - 1),
                           "OUT_OF_RANGE");
    }
    return place.Of(services::CheckIsText(place.field, question.question(), model_));
  }

  // What is scored, if anything is, and how it runs.
  absl::StatusOr<AskingShape> AddAnswers(const GivenPlace& place,
                                         const v1::ChoiceQuestion& question, SavedItem& saved) {
    if (ReadsLetters(choices_)) {
      VS_RETURN_IF_ERROR(AddLetters(question.choices_size(), model_, letters_));
      return ShapeOf(letters_.at(question.choices_size()));
    }
    for (const std::string& choice : question.choices()) {
      VS_RETURN_IF_ERROR(AddContinuation(place, choice, model_, saved));
    }
    return ShapeOfContinuations(saved);
  }

  const Request& request_;
  const SavedChoices& choices_;
  const std::string template_;
  const engine::ServedModel& model_;
  EvaluationWriter& writer_;
  Letters letters_;
  ItemIds ids_;
};

// --- Results -------------------------------------------------------------------------------------

// With continuations the softmax of log-probabilities a byte.
std::vector<double> ProbabilitiesOf(const SavedReading& reading, const v1::ChoiceQuestion& question,
                                    const SavedChoices& choices) {
  std::vector<double> numbers(reading.numbers().begin(), reading.numbers().end());
  if (ReadsLetters(choices)) return numbers;
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] /= static_cast<double>(question.choices(static_cast<int>(i)).size());
  }
  return analysis::Softmax(numbers);
}

void AddScores(const std::vector<analysis::AnsweredChoice>& answered, const SavedChoices& choices,
               v1::ChoicesResult& result) {
  const analysis::ChoiceScores scores =
      analysis::ScoreChoices(answered, choices.calibration_bins());
  result.set_accuracy(scores.accuracy);
  *result.mutable_accuracy_interval() = studies::IntervalToProto(scores.accuracy_interval);
  result.set_mean_probability(scores.mean_probability);
  result.set_brier_score(scores.brier_score);
  result.set_calibration_error(scores.calibration_error);
}

void Warn(Response& response) {
  for (const v1::ChoicesResult& result : response.results()) {
    if (!result.has_label_mass() || result.label_mass() >= services::kLeastAnswerMass) continue;
    response.add_warnings(absl::StrFormat(
        "condition `%s`: the letters have a probability of %.3f on average, so the model mostly "
        "says something else; tell it to answer by a letter alone, or set answer_prefix",
        result.condition(), result.label_mass()));
  }
}

// --- The work ------------------------------------------------------------------------------------

class ChoicesWork : public EvaluationWork {
 public:
  // `letters` has those of every number of choices; none where continuations are scored.
  ChoicesWork(EvaluationInputs inputs, engine::KeptCaptures memory, Letters letters)
      : EvaluationWork(std::move(inputs), std::move(memory)), letters_(std::move(letters)) {}

 protected:
  absl::StatusOr<std::vector<Answer>> Ask(const engine::ServedModel& model,
                                          std::vector<Asking> askings,
                                          const Cancellation& cancellation,
                                          v1::Usage& usage) const override {
    if (!ReadsLetters(of())) {
      return ScoreContinuations(model, std::move(askings), cancellation, usage);
    }
    std::vector<services::LabelQuestion> questions;
    for (Asking& asking : askings) {
      questions.push_back(
          {.request = std::move(asking.request), .labels = &letters_.at(NumbersOf(*asking.item))});
    }
    return AnswersOf(services::ReadLabels(*model.engine, std::move(questions), cancellation, usage),
                     /*with_text=*/false);
  }

  int NumbersOf(const SavedItem& item) const override {
    return item.choice_question().choices_size();
  }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishAnswers(
      const SavedAnswers& answers) const override {
    Response response;
    for (int c = 0; c < inputs_.how().conditions_size(); ++c) {
      *response.add_results() = ResultOf(answers, c);
    }
    response.set_example_prompt(inputs_.how().example_prompt());
    *response.mutable_provenance() = inputs_.record.provenance();
    Warn(response);
    return std::make_unique<Outcome>(std::move(response), "answers");
  }

 private:
  const SavedChoices& of() const { return inputs_.record.answer_choices(); }

  v1::ChoicesResult ResultOf(const SavedAnswers& answers, int condition) const {
    v1::ChoicesResult result;
    result.set_condition(inputs_.how().conditions(condition).name());
    std::vector<analysis::AnsweredChoice> answered;
    double mass = 0;
    for (int i = 0; i < answers.items_size(); ++i) {
      const v1::ChoiceQuestion& question = inputs_.items.items(i).choice_question();
      const SavedReading& reading = answers.items(i).readings(condition);
      const auto& one = answered.emplace_back(analysis::AnsweredChoice{
          .probabilities = ProbabilitiesOf(reading, question, of()), .right = question.answer()});
      v1::ChoiceAnswer& answer = *result.add_answers();
      answer.set_question(question.id());
      answer.mutable_probabilities()->Assign(one.probabilities.begin(), one.probabilities.end());
      answer.set_choice(analysis::LikeliestChoice(one.probabilities));
      answer.set_correct(answer.choice() == question.answer());
      if (ReadsLetters(of())) answer.set_label_mass(reading.mass());
      mass += reading.mass();
    }
    AddScores(answered, of(), result);
    if (ReadsLetters(of())) result.set_label_mass(mass / answers.items_size());
    *result.mutable_receipts() = answers.receipts(condition).receipts();
    return result;
  }

  const Letters letters_;
};

bool IsWhole(const SavedItem& item, const SavedChoices& choices) {
  const v1::ChoiceQuestion& question = item.choice_question();
  const int continuations = ReadsLetters(choices) ? 0 : question.choices_size();
  return question.choices_size() >= kFewestChoices && question.choices_size() <= kMostChoices &&
         question.answer() >= 0 && question.answer() < question.choices_size() &&
         item.continuations_size() == continuations && choices.calibration_bins() >= 1;
}

class AnswerChoicesKind : public EvaluationKind<Request, Response, ChoicesWork> {
 public:
  explicit AnswerChoicesKind(const Sources& sources)
      : EvaluationKind(sources, SavedWork::kAnswerChoices) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "questions"; }

 protected:
  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    VS_ASSIGN_OR_RETURN(SavedChoices choices, ChoicesOf(request, *model));
    services::UsedResources used;
    VS_ASSIGN_OR_RETURN(EvaluationWriter writer,
                        EvaluationWriter::Create(request.conditions(), /*num_forms=*/1, model,
                                                 context, options, sources_, used));
    Questions questions(request, choices, *model, writer);
    VS_RETURN_IF_ERROR(ForEachItem<v1::ChoiceQuestion>(
        "questions", request.questions(), request.artifact(), /*booleans=*/{}, context, sources_,
        used, [&](const GivenPlace& place, const v1::ChoiceQuestion& question) {
          return questions.Add(place, question);
        }));
    constexpr int64_t kBytesOfAnAnswer = 64 + kMostChoices * sizeof(double);
    VS_ASSIGN_OR_RETURN(EvaluationWriter::Written written,
                        writer.Finish(request.display_name(), kBytesOfAnAnswer));
    *written.inputs.record.mutable_answer_choices() = std::move(choices);
    return ResolvedOf(request, std::move(written), "questions", std::move(used));
  }

  absl::StatusOr<std::unique_ptr<ChoicesWork>> WorkOf(EvaluationInputs inputs,
                                                      const engine::ServedModel& model,
                                                      engine::KeptCaptures memory) const override {
    const SavedChoices& choices = inputs.record.answer_choices();
    Letters letters;
    for (const SavedItem& item : inputs.items.items()) {
      if (!IsWhole(item, choices)) return SpecDamaged();
      if (!ReadsLetters(choices)) continue;
      VS_RETURN_IF_ERROR(AddLetters(item.choice_question().choices_size(), model, letters));
    }
    return std::make_unique<ChoicesWork>(std::move(inputs), std::move(memory), std::move(letters));
  }
};

}  // namespace

std::unique_ptr<services::Kind> AnswerChoices(const Sources& sources) {
  return std::make_unique<AnswerChoicesKind>(sources);
}

}  // namespace valuescope::kinds
