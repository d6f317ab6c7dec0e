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

// A number of 64 bits without a sign, which reading alone would make of -1 too.
CLI::Validator Seed();

// --job and what goes with it.
void AddJobFlags(CLI::App& command, JobFlags& flags);
// Those of a command that makes nothing but jobs.
void AddSubmission(CLI::App& command, JobFlags& flags);

// --shared of a list.
void AddShared(CLI::App& command, bool& shared);

// Subcommands about vectors and neurons, and those that evaluate models. `globals` and `action`
// outlive the parsing.
void AddVectors(CLI::App& app, const Globals& globals, Action& action);
void AddNeurons(CLI::App& app, const Globals& globals, Action& action);
void AddEvaluations(CLI::App& app, const Globals& globals, Action& action);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_FLAGS_H_
