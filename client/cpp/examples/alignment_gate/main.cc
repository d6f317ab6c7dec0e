// An alignment gate: asks a model a questionnaire and multiple-choice questions, as it is and while
// it is steered, and lets the steering through only within the bounds of a file. HelpText says how
// it is used, gate.proto what the file may hold.
#include <valuescope/client.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "checks.h"
#include "gate_file.h"
#include "options.h"

namespace alignment_gate {
namespace {

namespace v1 = valuescope::v1;

enum ExitCode { kWithin = 0, kOutOfBounds = 1, kUsage = 2, kNotAsked = 3 };

// Whether running the pipeline again would help nobody: the command line, the bounds file or what
// it names is wrong. Until its model was ready, nothing that the server said was the file's fault.
bool IsToBeMended(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:            // a vector, say
    case absl::StatusCode::kFailedPrecondition:  // a vector of another model, labels without tokens
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kUnimplemented:
      return true;
    case absl::StatusCode::kResourceExhausted:  // without a time to come back it never fits
      return !valuescope::ErrorDetailsOf(status).retry_after;
    default:
      return false;
  }
}

int Fail(const absl::Status& status) {
  std::cerr << "alignment_gate: " << valuescope::ErrorText(status) << "\n";
  return IsToBeMended(status) ? kUsage : kNotAsked;
}

// For a server that was just started to listen.
constexpr absl::Duration kPatienceToBeHeard = absl::Seconds(15);

// A server that was just started does not listen yet, and then still loads its models. UNAVAILABLE,
// with why, where there is nothing to wait for.
absl::Status AwaitReady(valuescope::Client& client, const std::string& model,
                        absl::Duration patience) {
  v1::GetModelRequest request;
  request.set_name(model);
  const absl::Time begin = absl::Now(), heard_by = begin + std::min(patience, kPatienceToBeHeard);
  while (absl::Now() < begin + patience) {
    const auto found = client.GetModel(request);
    if (!found.ok()) {
      if (!absl::IsUnavailable(found.status()) || absl::Now() > heard_by) return found.status();
    } else if (found->model().state() == v1::MODEL_STATE_READY) {
      return absl::OkStatus();
    } else if (found->model().state() != v1::MODEL_STATE_LOADING) {
      return absl::UnavailableError(
          absl::StrCat(model, " is not served: ", v1::ModelState_Name(found->model().state()), " ",
                       found->model().state_message()));
    }
    absl::SleepFor(absl::Milliseconds(500));
  }
  return absl::DeadlineExceededError(absl::StrCat(model, " is still loading"));
}

// Puts a vector onto the server; returns its name.
absl::StatusOr<std::string> Import(valuescope::Client& client, const std::string& path,
                                   const std::string& model) {
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  v1::ImportVectorsHeader header;
  header.set_model(model);
  header.set_format(v1::VECTOR_FORMAT_SAFETENSORS);
  const auto imported = client.ImportVectors(*bytes, header);
  if (!imported.ok()) return imported.status();
  if (imported->vectors_size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' holds ", imported->vectors_size(), " vectors; one is needed"));
  }
  return imported->vectors(0).name();
}

// Lets the flags take the place of what the bounds file says, and sees that something is steered.
absl::Status Apply(const Options& options, valuescope::Client& client, Gate& gate) {
  std::string vector = options.vector;
  if (!options.vector_file.empty()) {
    absl::StatusOr<std::string> imported = Import(client, options.vector_file, gate.model());
    if (!imported.ok()) return imported.status();
    vector = *std::move(imported);
  }
  if (!vector.empty()) {
    gate.mutable_steered()->clear_interventions();
    v1::Intervention& intervention = *gate.mutable_steered()->add_interventions();
    intervention.mutable_add()->set_vector(vector);
    intervention.mutable_add()->set_coefficient(options.coefficient);
    intervention.mutable_layers()->mutable_list()->mutable_layers()->Assign(options.layers.begin(),
                                                                            options.layers.end());
  }
  if (gate.steered().interventions_size() > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "nothing steers; say `steered` in the bounds file, --vector or --vector_file");
}

// Asks under both conditions, of which the answer has the results in this order.
template <typename Request, typename Response>
absl::StatusOr<Response> Ask(valuescope::Client& client,
                             absl::StatusOr<Response> (valuescope::Client::*call)(
                                 const Request&, const valuescope::CallOptions&),
                             const Gate& gate, Request request) {
  request.set_model(gate.model());
  *request.add_conditions() = gate.unsteered();
  *request.add_conditions() = gate.steered();
  request.mutable_conditions(0)->set_name("unsteered");
  request.mutable_conditions(1)->set_name("steered");
  absl::StatusOr<Response> asked = (client.*call)(request, {});
  if (!asked.ok()) return asked;
  for (const std::string& warning : asked->warnings()) std::cerr << "warning: " << warning << "\n";
  if (asked->results_size() == 2) return asked;
  return absl::InternalError(
      absl::StrCat("the server answered under ", asked->results_size(), " conditions, not 2"));
}

// Asks what the bounds speak of, and compares.
absl::StatusOr<std::vector<Check>> Measure(valuescope::Client& client, const Gate& gate) {
  std::vector<Check> checks;
  if (gate.has_questionnaire()) {
    const auto asked =
        Ask(client, &valuescope::Client::AskQuestionnaire, gate, gate.questionnaire());
    if (!asked.ok()) return asked.status();
    auto values = CheckValues(gate, asked->results(0), asked->results(1));
    if (!values.ok()) return values;
    checks = *std::move(values);
  }
  if (gate.has_choices()) {
    const auto asked = Ask(client, &valuescope::Client::AnswerChoices, gate, gate.choices());
    if (!asked.ok()) return asked.status();
    for (Check& check : CheckCapability(gate, asked->results(0), asked->results(1))) {
      checks.push_back(std::move(check));
    }
  }
  return checks;
}

int Report(const std::vector<Check>& checks) {
  int broken = 0;
  for (const Check& check : checks) {
    std::cout << ToLine(check) << "\n";
    broken += !check.Within();
  }
  std::cout << (broken == 0 ? "within all bounds" : absl::StrCat("bounds broken: ", broken))
            << "\n";
  return broken == 0 ? kWithin : kOutOfBounds;
}

int Main(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument != "--help" && argument != "-h") continue;
    std::cout << HelpText();
    return kWithin;
  }
  const absl::StatusOr<Options> options = ParseOptions(arguments);
  if (!options.ok()) return Fail(options.status());
  absl::StatusOr<Gate> gate = ReadGateFile(options->bounds);
  if (!gate.ok()) return Fail(gate.status());
  if (!options->model.empty()) gate->set_model(options->model);
  if (gate->model().empty()) return Fail(absl::InvalidArgumentError("say `model` or --model"));

  valuescope::Client client(options->server, {.timeout = options->timeout});
  absl::Status status = AwaitReady(client, gate->model(), options->timeout);
  if (status.ok()) status = Apply(*options, client, *gate);
  if (!status.ok()) return Fail(status);
  const absl::StatusOr<std::vector<Check>> checks = Measure(client, *gate);
  return checks.ok() ? Report(*checks) : Fail(checks.status());
}

}  // namespace
}  // namespace alignment_gate

int main(int argc, char** argv) {
  return alignment_gate::Main(std::vector<std::string>(argv + 1, argv + argc));
}
