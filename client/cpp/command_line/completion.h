// Shell completion scripts, made from the declared commands and flags themselves.
#ifndef VALUESCOPE_COMMAND_LINE_COMPLETION_H_
#define VALUESCOPE_COMMAND_LINE_COMPLETION_H_

#include <CLI/CLI.hpp>
#include <string>

namespace valuescope::command_line {

enum class Shell { kBash, kZsh, kFish };

// A script that completes the subcommands and flags of `app` and of each of its subcommands, whose
// words must be plain (letters, digits, '-', '_').
std::string CompletionScript(const CLI::App& app, Shell shell);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_COMPLETION_H_
