// Parts of requests, from flags that several commands share. Errors are sentences for the person
// who typed them.
#ifndef VALUESCOPE_COMMAND_LINE_REQUESTS_H_
#define VALUESCOPE_COMMAND_LINE_REQUESTS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "arguments.h"
#include "commands.h"

namespace valuescope::command_line {

// A chat of an optional system message and one user message, or plain text; the words "-" are
// standard input.
absl::StatusOr<v1::Prompt> MakePrompt(const PromptFlags& flags);

// One for each --vector, then one for each --edit.
absl::StatusOr<std::vector<ParsedEdit>> ParseEdits(const PromptFlags& flags);

// Shapes the rows that come from files, by the widths that the server tells of `model`; asks it
// nothing where there are none. Prints what is wrong; returns an exit code.
int ShapeFiles(Client& client, const std::string& model, std::vector<ParsedEdit>& edits);

template <typename Request>
void AddInterventions(std::vector<ParsedEdit> edits, Request& request) {
  for (ParsedEdit& edit : edits) *request.add_interventions() = std::move(edit.intervention);
}

// Uploads a local file of labelled responses, or takes the name of an artifact; its name goes into
// `artifact`. Prints what is wrong; returns an exit code.
int PlaceDataSet(Client& client, const std::string& data_set, std::string* artifact);

// Words or a rubric, which is put to `model` where the flags name none.
absl::StatusOr<v1::Judge> MakeJudge(const JudgeFlags& flags, const std::string& model);

// What the server is to generate and label, and by whom. Reads the file of queries.
absl::StatusOr<v1::GeneratedResponses> MakeGeneration(const ExtractFlags& flags);

// Everything but what a server is needed for: the data set and texts that stand for tokens.
absl::StatusOr<v1::ExtractVectorsRequest> MakeExtraction(const ExtractFlags& flags);
absl::StatusOr<v1::AttributeNeuronsRequest> MakeAttribution(const AttributeFlags& flags);
absl::StatusOr<v1::TestNeuronsRequest> MakeNeuronTest(const TestFlags& flags);

// Puts the tokens of a logit difference into `target`, which MakeAttribution or MakeNeuronTest
// made. Prints what is wrong; returns an exit code.
int PlaceTokens(Client& client, const std::string& model, const TargetFlags& flags,
                v1::AttributionTarget& target);

// Queues a job, watches it or tells its cost, as `flags` say. Returns an exit code.
int CreateJob(const Globals& globals, Client& client, v1::JobSpec spec,
              const std::string& display_name, const JobFlags& flags);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_REQUESTS_H_
