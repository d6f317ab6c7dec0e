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

void AddJobFlags(CLI::App& command, JobFlags& flags) {
  CLI::Option* job = command.add_flag(
      "--job", flags.job, "as a job, which survives the server and may be large; prints jobs/ID");
  CLI::Option* validate_only = command.add_flag("--validate_only", flags.validate_only,
                                                "of --job: check and estimate, run nothing");
  validate_only->needs(job);
  command.add_flag("--watch", flags.watch, "of --job: show progress until it is finished")
      ->needs(job)
      ->excludes(validate_only);
}

}  // namespace valuescope::command_line
