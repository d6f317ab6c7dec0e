// Parts of requests, from flags that several commands share. Errors are sentences for the person
// who typed them.
#ifndef VALUESCOPE_COMMAND_LINE_REQUESTS_H_
#define VALUESCOPE_COMMAND_LINE_REQUESTS_H_

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "arguments.h"
#include "commands.h"

namespace valuescope::command_line {

// A chat of an optional system message and one user message, or plain text; the words "-" are
// standard input.
absl::StatusOr<v1::Prompt> MakePrompt(const PromptFlags& flags);

// One intervention for each --vector, then one for each --edit.
template <typename Request>
absl::Status AddInterventions(const PromptFlags& flags, Request& request) {
  const auto add = [&](absl::StatusOr<v1::Intervention> intervention) {
    if (!intervention.ok()) return intervention.status();
    intervention->set_preserve_norm(flags.preserve_norm);
    *request.add_interventions() = *std::move(intervention);
    return absl::OkStatus();
  };
  for (const std::string& text : flags.vectors) {
    if (absl::Status added = add(ParseSteering(text, flags.scope)); !added.ok()) return added;
  }
  for (const std::string& text : flags.edits) {
    if (absl::Status added = add(ParseEdit(text, flags.scope)); !added.ok()) return added;
  }
  return absl::OkStatus();
}

// Uploads a local file of labelled responses, or passes the name of an artifact through.
absl::StatusOr<std::string> DataSetArtifact(Client& client, const std::string& data_set);

// Uploads the data set where it is a file.
absl::StatusOr<v1::AttributeNeuronsRequest> MakeAttribution(Client& client,
                                                            const AttributeFlags& flags);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_REQUESTS_H_
