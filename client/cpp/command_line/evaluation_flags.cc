#include "commands.h"
#include "flags.h"

namespace valuescope::command_line {
namespace {

void AddEvaluation(CLI::App& command, EvaluationFlags& flags, const char* data_set) {
  command.add_option("--model", flags.model)->required();
  command.add_option("data_set", flags.data_set, data_set)->required();
  command
      .add_option("--condition", flags.conditions,
                  "NAME, or NAME=EDIT with an edit as of generate --edit; repeatable, a name again "
                  "adds an edit to it; default one without edits")
      ->allow_extra_args(false);
  AddSystem(command, flags.system);
}

void AddQuestionnaire(CLI::App& app, const Globals& globals, Action& action) {
  static QuestionnaireFlags flags;
  CLI::App* command = app.add_subcommand(
      "questionnaire", "how much a model says that items are like it, value by value");
  AddEvaluation(*command, flags.evaluation, "file of items in JSON Lines, or artifacts/ID");
  command
      ->add_option("--template", flags.template_text,
                   "the user's turn, with {item} and {options}; \\n is a line break")
      ->required();
  command
      ->add_option("--option", flags.options,
                   "an answer, repeatable, from the least to the most like; called 1, 2, ...")
      ->required()
      ->allow_extra_args(false);
  command->add_option("--language", flags.language, "only items of this language");
  command->add_option("--order", flags.order, "of options: both (default), given or reversed");
  command->add_option("--key", flags.key, "values by the items' ids: pvq_40 or pvq_rr");
  command->add_option("--answer_prefix", flags.answer_prefix, "what the answer begins with");
  command
      ->add_option("--max_answer_tokens", flags.max_answer_tokens,
                   "answers in words too; 0: from logits alone")
      ->capture_default_str();
  command->callback([&] { action = [&globals] { return AskQuestionnaire(globals, flags); }; });
}

void AddChoices(CLI::App& app, const Globals& globals, Action& action) {
  static ChoicesFlags flags;
  CLI::App* command =
      app.add_subcommand("choices", "multiple-choice questions by logits: accuracy, calibration");
  AddEvaluation(*command, flags.evaluation, "file of questions in JSON Lines, or artifacts/ID");
  command->add_option(
      "--template", flags.template_text,
      "the user's turn, with {question} and {choices}; \\n is a line break; default "
      "these, a line each");
  command->add_option("--reading", flags.reading,
                      "letters (default), or continuations: the likeliest choice a byte");
  command->add_option("--answer_prefix", flags.answer_prefix, "what the answer begins with");
  command->add_option("--calibration_bins", flags.calibration_bins, "default 10");
  command->callback([&] { action = [&globals] { return AnswerChoices(globals, flags); }; });
}

void AddTagged(CLI::App& app, const Globals& globals, Action& action) {
  static TaggedFlags flags;
  CLI::App* command = app.add_subcommand(
      "tagged", "responses that speak for values, by how likely a model finds them");
  AddEvaluation(*command, flags.evaluation, "file of responses in JSON Lines, or artifacts/ID");
  command
      ->add_option("--template", flags.templates,
                   "a wording of the user's turn, with {query}, repeatable; \\n is a line break")
      ->allow_extra_args(false);
  command->add_option("--min_weight", flags.min_weight, "weights of smaller size count as 0")
      ->capture_default_str();
  command->callback([&] { action = [&globals] { return ScoreTaggedResponses(globals, flags); }; });
}

}  // namespace

void AddSystem(CLI::App& command, std::optional<std::string>& system) {
  command
      .add_option_function<std::string>(
          "--system", [&system](const std::string& text) { system = text; },
          "system message; --system \"\" is an explicitly empty one, which is not the same as none")
      ->expected(1)
      ->allow_extra_args(false);
}

void AddEvaluations(CLI::App& app, const Globals& globals, Action& action) {
  AddQuestionnaire(app, globals, action);
  AddChoices(app, globals, action);
  AddTagged(app, globals, action);
}

}  // namespace valuescope::command_line
