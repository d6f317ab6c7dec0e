// Commands about what tenants share and used, with their flags.
#ifndef VALUESCOPE_COMMAND_LINE_TENANT_COMMANDS_H_
#define VALUESCOPE_COMMAND_LINE_TENANT_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "flags.h"

namespace valuescope::command_line {

// All outlive the parsing and the action.
void AddTenantCommands(CLI::App& app, const Globals& globals, Action& action);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_TENANT_COMMANDS_H_
