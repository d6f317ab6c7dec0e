// Commands about texts and responses, with their flags.
#ifndef VALUESCOPE_COMMAND_LINE_TEXT_COMMANDS_H_
#define VALUESCOPE_COMMAND_LINE_TEXT_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "flags.h"

namespace valuescope::command_line {

void AddJudge(CLI::App& command, JudgeFlags& flags);

// All outlive the parsing and the action.
void AddTextCommands(CLI::App& app, const Globals& globals, Action& action);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_TEXT_COMMANDS_H_
