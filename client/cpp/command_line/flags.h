// How flags are declared, of more than one file.
#ifndef VALUESCOPE_COMMAND_LINE_FLAGS_H_
#define VALUESCOPE_COMMAND_LINE_FLAGS_H_

#include <CLI/CLI.hpp>
#include <functional>
#include <optional>
#include <string>

#include "commands.h"

namespace valuescope::command_line {

// The subcommand to run, chosen while parsing; printing and connecting wait until everything was
// parsed.
using Action = std::function<int()>;

// --system, which may be given and empty.
void AddSystem(CLI::App& command, std::optional<std::string>& system);

// Subcommands that evaluate models. `globals` and `action` outlive the parsing.
void AddEvaluations(CLI::App& app, const Globals& globals, Action& action);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_FLAGS_H_
