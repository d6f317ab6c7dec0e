// How flags are declared, of more than one file.
#ifndef VALUESCOPE_COMMAND_LINE_FLAGS_H_
#define VALUESCOPE_COMMAND_LINE_FLAGS_H_

#include <CLI/CLI.hpp>
#include <functional>

#include "commands.h"

namespace valuescope::command_line {

// The subcommand to run, chosen while parsing; printing and connecting wait until everything was
// parsed.
using Action = std::function<int()>;

// Those of an attribution.
void AddAttribution(CLI::App& command, AttributeFlags& flags);

// Subcommands about vectors and neurons. `globals` and `action` outlive the parsing.
void AddVectors(CLI::App& app, const Globals& globals, Action& action);
void AddNeurons(CLI::App& app, const Globals& globals, Action& action);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_FLAGS_H_
