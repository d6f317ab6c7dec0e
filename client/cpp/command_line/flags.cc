#include "flags.h"

#include <cstdint>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"

namespace valuescope::command_line {

CLI::Validator Seed() {
  return CLI::Validator(
      [](const std::string& text) -> std::string {
        uint64_t seed = 0;
        const bool digits = absl::c_all_of(text, absl::ascii_isdigit);
        return digits && absl::SimpleAtoi(text, &seed) ? "" : text + " is no seed";
      },
      "0 .. 18446744073709551615");
}

void AddSubmission(CLI::App& command, JobFlags& flags) {
  CLI::Option* validate_only = command.add_flag("--validate_only", flags.validate_only,
                                                "of a job: check and estimate, run nothing");
  command.add_flag("--watch", flags.watch, "of a job: show progress until it is finished")
      ->excludes(validate_only);
  command
      .add_option("--priority", flags.priority,
                  "of a job, -100 to 100: among your own the higher one runs first")
      ->check(CLI::Range(-100, 100))
      ->capture_default_str();
}

void AddJobFlags(CLI::App& command, JobFlags& flags) {
  CLI::Option* job = command.add_flag(
      "--job", flags.job, "as a job, which survives the server and may be large; prints jobs/ID");
  AddSubmission(command, flags);
  for (const char* name : {"--validate_only", "--watch", "--priority"}) {
    command.get_option(name)->needs(job);
  }
}

void AddShared(CLI::App& command, bool& shared) {
  command.add_flag("--shared", shared, "what tenants published, in place of your own");
}

}  // namespace valuescope::command_line
