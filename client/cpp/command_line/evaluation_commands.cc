#include <algorithm>
#include <iostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

// What stands between quotes a shell hands over as it is, a backslash and an n.
std::string WithLineBreaks(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"\\n", "\n"}});
}

// The condition of this name, which may be new.
template <typename Request>
v1::EvaluationCondition& ConditionOf(absl::string_view name, const EvaluationFlags& flags,
                                     Request& request) {
  auto& conditions = *request.mutable_conditions();
  const auto place = std::find_if(conditions.begin(), conditions.end(),
                                  [&](const auto& condition) { return condition.name() == name; });
  if (place != conditions.end()) return *place;
  v1::EvaluationCondition& condition = *conditions.Add();
  condition.set_name(std::string(name));
  if (flags.system) condition.set_system_message(*flags.system);
  return condition;
}

// Fills in model, data set and conditions; returns an exit code, having said what is wrong.
template <typename Request>
int FillEvaluation(Client& client, const EvaluationFlags& flags, Request& request) {
  request.set_model(ResourceName("models", flags.model));
  if (flags.conditions.empty() && flags.system) ConditionOf("", flags, request);
  for (const absl::string_view text : flags.conditions) {
    const size_t end = text.find('=');
    v1::EvaluationCondition& condition = ConditionOf(text.substr(0, end), flags, request);
    if (end == absl::string_view::npos) continue;
    auto edit = ParseEdit(text.substr(end + 1), PromptFlags().scope);
    if (!edit.ok()) return FailUsage(edit.status());
    std::vector<ParsedEdit> edits = {*std::move(edit)};
    if (const int code = ShapeFiles(client, request.model(), edits); code != kOk) return code;
    AddInterventions(std::move(edits), condition);
  }
  return PlaceDataSet(client, flags.data_set, request.mutable_artifact());
}

std::string Number(double number) { return absl::StrFormat("%.3f", number); }

std::string NumberOrNothing(bool is_set, double number) { return is_set ? Number(number) : ""; }

void PrintQuestionnaire(const v1::AskQuestionnaireResponse& response) {
  std::vector<std::vector<std::string>> rows = {
      {"CONDITION", "VALUE", "SCORE", "CENTRED", "ERROR", "ITEMS", "IN WORDS"}};
  for (const v1::QuestionnaireResult& result : response.results()) {
    for (const v1::ValueScore& value : result.values()) {
      rows.push_back({result.condition(), value.value(), Number(value.score()),
                      absl::StrFormat("%+.3f", value.centred()),
                      NumberOrNothing(value.has_standard_error(), value.standard_error()),
                      absl::StrCat(value.num_items()),
                      NumberOrNothing(value.has_text_score(), value.text_score())});
    }
  }
  PrintTable(rows);
  for (const v1::QuestionnaireResult& result : response.results()) {
    std::cout << result.condition() << ": mean of all items " << Number(result.mean())
              << ", label mass " << Number(result.label_mass()) << "\n";
  }
}

void PrintChoices(const v1::AnswerChoicesResponse& response) {
  std::vector<std::vector<std::string>> rows = {
      {"CONDITION", "ACCURACY", "2.5 %", "97.5 %", "P(RIGHT)", "BRIER", "ECE", "LABEL MASS"}};
  for (const v1::ChoicesResult& result : response.results()) {
    rows.push_back({result.condition(), Number(result.accuracy()),
                    Number(result.accuracy_interval().lower()),
                    Number(result.accuracy_interval().upper()), Number(result.mean_probability()),
                    Number(result.brier_score()), Number(result.calibration_error()),
                    NumberOrNothing(result.has_label_mass(), result.label_mass())});
  }
  PrintTable(rows);
}

void PrintTagged(const v1::ScoreTaggedResponsesResponse& response) {
  std::vector<std::vector<std::string>> rows = {
      {"CONDITION", "VALUE", "SCORE", "CENTRED", "RESPONSES"}};
  for (const v1::TaggedResult& result : response.results()) {
    for (const v1::ValueScore& value : result.values()) {
      rows.push_back({result.condition(), value.value(), Number(value.score()),
                      absl::StrFormat("%+.3f", value.centred()), absl::StrCat(value.num_items())});
    }
  }
  PrintTable(rows);
}

// Prints what was answered, or why nothing was.
template <typename Response>
int Show(const Globals& globals, const absl::StatusOr<Response>& response,
         void (*print)(const Response&)) {
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    print(*response);
    PrintWarnings(response->warnings());
  }
  return kOk;
}

}  // namespace

int AskQuestionnaire(const Globals& globals, const QuestionnaireFlags& flags) {
  v1::AskQuestionnaireRequest request;
  for (const std::string& text : flags.options) {
    v1::AnswerOption& option = *request.add_options();
    option.set_label(absl::StrCat(request.options_size()));
    option.set_text(text);
    option.set_score(request.options_size());
  }
  const auto order = ParseOptionOrder(flags.order.empty() ? "both" : flags.order);
  const auto key =
      flags.key.empty() ? v1::QUESTIONNAIRE_KEY_UNSPECIFIED : ParseQuestionnaireKey(flags.key);
  if (!order.ok() || !key.ok()) return FailUsage(order.ok() ? key.status() : order.status());
  request.set_order(*order);
  request.set_key(*key);
  request.set_template_(WithLineBreaks(flags.template_text));
  request.set_answer_prefix(WithLineBreaks(flags.answer_prefix));
  request.set_language(flags.language);
  request.set_max_answer_tokens(flags.max_answer_tokens);
  Client client = globals.Connect();
  if (const int code = FillEvaluation(client, flags.evaluation, request); code != kOk) return code;
  return Show(globals, client.AskQuestionnaire(request), PrintQuestionnaire);
}

int AnswerChoices(const Globals& globals, const ChoicesFlags& flags) {
  v1::AnswerChoicesRequest request;
  if (!flags.reading.empty()) {
    const auto reading = ParseChoiceReading(flags.reading);
    if (!reading.ok()) return FailUsage(reading.status());
    request.set_reading(*reading);
  }
  request.set_template_(WithLineBreaks(flags.template_text));
  request.set_answer_prefix(WithLineBreaks(flags.answer_prefix));
  if (flags.calibration_bins) request.set_calibration_bins(*flags.calibration_bins);
  Client client = globals.Connect();
  if (const int code = FillEvaluation(client, flags.evaluation, request); code != kOk) return code;
  return Show(globals, client.AnswerChoices(request), PrintChoices);
}

int ScoreTaggedResponses(const Globals& globals, const TaggedFlags& flags) {
  v1::ScoreTaggedResponsesRequest request;
  for (const std::string& one : flags.templates) request.add_templates(WithLineBreaks(one));
  request.set_min_weight(flags.min_weight);
  Client client = globals.Connect();
  if (const int code = FillEvaluation(client, flags.evaluation, request); code != kOk) return code;
  return Show(globals, client.ScoreTaggedResponses(request), PrintTagged);
}

}  // namespace valuescope::command_line
