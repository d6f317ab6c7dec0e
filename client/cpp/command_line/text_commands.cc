#include "text_commands.h"

#include <google/protobuf/descriptor.h>

#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "arguments.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Reflection;

// "max_words:50": a field of Instruction and its value.
absl::StatusOr<v1::Instruction> ParseInstruction(absl::string_view text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  const auto& [name, value] = parts;
  v1::Instruction instruction;
  const Reflection& reflection = *instruction.GetReflection();
  const FieldDescriptor* field = instruction.GetDescriptor()->FindFieldByName(name);
  const auto bad = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("--instruction ", text, ": ", what));
  };
  if (field == nullptr) {
    std::string names;
    for (int i = 0; i < instruction.GetDescriptor()->field_count(); ++i) {
      absl::StrAppend(&names, i == 0 ? "" : ", ", instruction.GetDescriptor()->field(i)->name());
    }
    return bad(absl::StrCat("must be NAME:VALUE with one of ", names));
  }
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    reflection.SetString(&instruction, field, value);
  } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
    if (value != "true" && value != "false") return bad("the value must be true or false");
    reflection.SetBool(&instruction, field, value == "true");
  } else {
    int32_t number = 0;
    if (!absl::SimpleAtoi(value, &number)) return bad("the value must be a whole number");
    reflection.SetInt32(&instruction, field, number);
  }
  return instruction;
}

std::string NameOf(const v1::TextMeasures& one) {
  return one.condition().empty() ? "-" : one.condition();
}

void PrintMeasures(const v1::MeasureTextsResponse& response) {
  std::vector<std::vector<std::string>> rows = {
      {"CONDITION", "TEXTS", "EMPTY", "TOKENS", "COHERENT", "REFUSALS", "SELF-BLEU", "PERPLEXITY"}};
  std::vector<std::vector<std::string>> ngrams = {
      {"CONDITION", "N", "N-GRAMS", "DISTINCT", "ADJUSTED", "ENTROPY"}};
  std::vector<std::vector<std::string>> instructions = {{"CONDITION", "INSTRUCTION", "RATE"}};
  for (const v1::TextMeasures& one : response.measures()) {
    rows.push_back({NameOf(one), absl::StrCat(one.num_texts()), absl::StrCat(one.num_empty()),
                    NumberOrNothing(one.has_mean_tokens(), one.mean_tokens()),
                    NumberOrNothing(one.has_coherent_share(), one.coherent_share()),
                    NumberOrNothing(one.has_refusal_rate(), one.refusal_rate()),
                    NumberOrNothing(one.has_self_bleu(), one.self_bleu()),
                    NumberOrNothing(one.has_perplexity(), one.perplexity())});
    for (const v1::NgramDiversity& of : one.diversity()) {
      ngrams.push_back({NameOf(one), absl::StrCat(of.n()), absl::StrCat(of.num_ngrams()),
                        NumberOrNothing(of.has_distinct(), of.distinct()),
                        NumberOrNothing(of.has_expectation_adjusted_distinct(),
                                        of.expectation_adjusted_distinct()),
                        NumberOrNothing(of.has_entropy(), of.entropy())});
    }
    for (const v1::InstructionRate& of : one.instructions()) {
      instructions.push_back(
          {NameOf(one), absl::StrCat(of.instruction()), NumberOrNothing(of.has_rate(), of.rate())});
    }
  }
  PrintTable(rows);
  std::cout << "\n";
  PrintTable(ngrams);
  if (instructions.size() == 1) return;
  std::cout << "\n";
  PrintTable(instructions);
}

void AddMeasure(CLI::App& app, const Globals& globals, Action& action) {
  static MeasureFlags flags;
  CLI::App* measure = app.add_subcommand(
      "measure", "what texts are like: diversity, refusals, instructions, perplexity");
  measure->add_option("--model", flags.model, "whose tokens are counted")->required();
  measure
      ->add_option("data_set", flags.data_set,
                   "file of JSON Lines, or artifacts/ID; measured by `condition`")
      ->required();
  measure->add_option("--ngrams", flags.ngrams, "lengths; default 1,2,3")->delimiter(',');
  measure
      ->add_option("--phrase", flags.phrases,
                   "word or phrase that marks a refusal; repeatable; ends in * for any ending")
      ->allow_extra_args(false);
  measure
      ->add_option("--instruction", flags.instructions,
                   "checked in each text, such as max_words:50, is_json:true or script:Hang; "
                   "repeatable")
      ->allow_extra_args(false);
  measure->add_option("--vocabulary", flags.vocabulary,
                      "of the expectation-adjusted distinct; default the model's");
  measure->add_option("--self_bleu_texts", flags.self_bleu_texts,
                      "of a condition, drawn where there are more; default 500");
  measure->add_flag("--perplexity", flags.perplexity, "of each text behind its prompt");
  measure->add_option("--seed", flags.seed, "of the draw")->check(Seed())->capture_default_str();
  measure->callback([&] { action = [&globals] { return MeasureTexts(globals, flags); }; });
}

void AddJudging(CLI::App& app, const Globals& globals, Action& action) {
  static JudgeResponsesFlags flags;
  CLI::App* judge =
      app.add_subcommand("judge", "labels responses by words or by a served model, or grades them");
  judge->add_option("data_set", flags.data_set, "file of JSON Lines, or artifacts/ID")->required();
  judge->add_option("--model", flags.model, "whose token ids the data set has");
  AddJudge(*judge, flags.judge);
  judge->add_option("--grade", flags.grade,
                    "question about {query} and {response} that a number from 0 to 10 answers");
  judge->add_flag("--each", flags.each, "a row a response, beside the totals");
  judge->callback([&] { action = [&globals] { return JudgeResponses(globals, flags); }; });
}

void PrintJudgements(const v1::JudgeResponsesResponse& response, bool each) {
  PrintTable({{"RESPONSES", "EXPRESSING", "MEAN GRADE", "LABEL MASS"},
              {absl::StrCat(response.judgements_size()),
               NumberOrNothing(response.has_expressing_share(), response.expressing_share()),
               NumberOrNothing(response.has_mean_grade(), response.mean_grade()),
               NumberOrNothing(response.has_label_mass(), response.label_mass())}});
  if (!each) return;
  std::vector<std::vector<std::string>> rows = {
      {"RESPONSE", "EXPRESSES", "PROBABILITY", "GRADE", "LABEL MASS"}};
  for (int i = 0; i < response.judgements_size(); ++i) {
    const v1::Judgement& one = response.judgements(i);
    const char* label = one.expresses() ? "yes" : "no";
    rows.push_back({absl::StrCat(i), one.has_expresses() ? label : "",
                    NumberOrNothing(one.has_probability(), one.probability()),
                    NumberOrNothing(one.has_grade(), one.grade()),
                    NumberOrNothing(one.has_label_mass(), one.label_mass())});
  }
  std::cout << "\n";
  PrintTable(rows);
}

void AddPairs(CLI::App& app, const Globals& globals, Action& action) {
  static PairsFlags flags;
  CLI::App* compare = app.add_subcommand(
      "compare-responses", "which of two responses a served model prefers, asked in both orders");
  compare->add_option("--model", flags.model, "the judge")->required();
  compare
      ->add_option("data_set", flags.data_set,
                   "file of JSON Lines of query, first and second, or artifacts/ID")
      ->required();
  compare
      ->add_option("--rubric", flags.rubric,
                   "question about {query}, {a} and {b} that A or B answers")
      ->required();
  compare->add_flag("--each", flags.each, "a row a pair, beside the totals");
  compare->callback([&] { action = [&globals] { return CompareResponses(globals, flags); }; });
}

void PrintPreferences(const v1::CompareResponsesResponse& response, bool each) {
  PrintTable(
      {{"PAIRS", "FIRST WINS", "2.5 %", "97.5 %", "ORDERS AGREE", "LABEL MASS"},
       {absl::StrCat(response.preferences_size()), absl::StrFormat("%.4g", response.win_rate()),
        absl::StrFormat("%.4g", response.win_rate_interval().lower()),
        absl::StrFormat("%.4g", response.win_rate_interval().upper()),
        absl::StrFormat("%.4g", response.order_agreement()),
        absl::StrFormat("%.4g", response.label_mass())}});
  if (!each) return;
  std::vector<std::vector<std::string>> rows = {{"PAIR", "P(FIRST)", "ORDER SPREAD", "LABEL MASS"}};
  for (int i = 0; i < response.preferences_size(); ++i) {
    const v1::PairPreference& one = response.preferences(i);
    rows.push_back({absl::StrCat(i), absl::StrFormat("%.4g", one.probability()),
                    absl::StrFormat("%.4g", one.order_spread()),
                    absl::StrFormat("%.4g", one.label_mass())});
  }
  std::cout << "\n";
  PrintTable(rows);
}

// Labels or grades, as the flags ask.
absl::Status Choose(const JudgeResponsesFlags& flags, v1::JudgeResponsesRequest& request) {
  if (flags.grade.empty() && flags.judge.words.empty() && flags.judge.rubric.empty()) {
    return absl::InvalidArgumentError("a judge needs --words, --rubric or --grade, one of them");
  }
  if (flags.grade.empty()) {
    auto judge = MakeJudge(flags.judge, flags.model);
    if (!judge.ok()) return judge.status();
    *request.mutable_judge() = *std::move(judge);
    return absl::OkStatus();
  }
  if (!flags.judge.words.empty() || !flags.judge.rubric.empty()) {
    return absl::InvalidArgumentError("--grade takes the place of --words and --rubric");
  }
  const std::string& model = flags.judge.judge_model;
  request.mutable_grade()->set_model(ResourceName("models", model.empty() ? flags.model : model));
  request.mutable_grade()->set_rubric(flags.grade);
  return absl::OkStatus();
}

}  // namespace

void AddJudge(CLI::App& command, JudgeFlags& flags) {
  command.add_option("--words", flags.words,
                     "words or phrases by which an answer expresses the value; WORD* for all that "
                     "begin so");
  CLI::Option* rubric = command.add_option(
      "--rubric", flags.rubric,
      "yes/no question about {query} and {response} that a model answers instead");
  command.add_option("--judge_model", flags.judge_model, "that model; default --model")
      ->needs(rubric);
  command
      .add_option("--threshold", flags.threshold,
                  "of yes against no, from which on an answer expresses it; default .5")
      ->needs(rubric);
}

int JudgeResponses(const Globals& globals, const JudgeResponsesFlags& flags) {
  v1::JudgeResponsesRequest request;
  if (!flags.model.empty()) request.set_model(ResourceName("models", flags.model));
  if (const absl::Status chosen = Choose(flags, request); !chosen.ok()) return FailUsage(chosen);
  Client client = globals.Connect();
  const int placed = PlaceDataSet(client, flags.data_set, request.mutable_artifact());
  if (placed != kOk) return placed;
  const auto response = client.JudgeResponses(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintJudgements(*response, flags.each);
    PrintWarnings(response->warnings());
  }
  return kOk;
}

int CompareResponses(const Globals& globals, const PairsFlags& flags) {
  v1::CompareResponsesRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.set_rubric(flags.rubric);
  Client client = globals.Connect();
  const int placed = PlaceDataSet(client, flags.data_set, request.mutable_artifact());
  if (placed != kOk) return placed;
  const auto response = client.CompareResponses(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintPreferences(*response, flags.each);
    PrintWarnings(response->warnings());
  }
  return kOk;
}

int MeasureTexts(const Globals& globals, const MeasureFlags& flags) {
  v1::MeasureTextsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.mutable_ngrams()->Assign(flags.ngrams.begin(), flags.ngrams.end());
  request.mutable_refusal_phrases()->Assign(flags.phrases.begin(), flags.phrases.end());
  for (const std::string& text : flags.instructions) {
    const auto instruction = ParseInstruction(text);
    if (!instruction.ok()) return FailUsage(instruction.status());
    *request.add_instructions() = *instruction;
  }
  if (flags.vocabulary) request.set_vocabulary(*flags.vocabulary);
  if (flags.self_bleu_texts) request.set_self_bleu_texts(*flags.self_bleu_texts);
  request.set_perplexity(flags.perplexity);
  request.set_seed(flags.seed);
  Client client = globals.Connect();
  const int placed = PlaceDataSet(client, flags.data_set, request.mutable_artifact());
  if (placed != kOk) return placed;
  const auto response = client.MeasureTexts(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintMeasures(*response);
    PrintWarnings(response->warnings());
  }
  return kOk;
}

void AddTextCommands(CLI::App& app, const Globals& globals, Action& action) {
  AddMeasure(app, globals, action);
  AddJudging(app, globals, action);
  AddPairs(app, globals, action);
}

}  // namespace valuescope::command_line
