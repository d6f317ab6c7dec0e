// valuescope: the command line. Flags become plain structs (commands.h); this file only declares
// them, those of vectors, neurons and evaluations stand in files of their own (flags.h).
#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "arguments.h"
#include "commands.h"
#include "completion.h"
#include "flags.h"
#include "output.h"
#include "tenant_commands.h"
#include "text_commands.h"

namespace valuescope::command_line {
namespace {

constexpr char kFooter[] = R"(examples:
  valuescope models
  valuescope generate --model SmolLM2-135M-Instruct --system "" "How should I spend a free Saturday?"
  valuescope generate --model SmolLM2-135M-Instruct --vector vectors/ID:6@14 "Plan my Sunday."
  valuescope neurons attribute --model SmolLM2-135M-Instruct --vector vectors/ID --job --watch responses.jsonl

--json prints one JSON document, or JSON Lines for lists and streams, with the contract's field names. Progress and remarks go to
standard error, the progress bar only to a terminal; there are no colours.

exit codes: 0 done, 1 the server failed or cannot be reached, 2 the command line is wrong,
3 the request was refused, 130 interrupted

'valuescope COMMAND --help' explains a command.)";

constexpr char kJobsFooter[] = R"(examples:
  valuescope jobs submit spec.json --display_name night --watch
  valuescope jobs list --state succeeded,failed --created_after 2d

'vectors extract', 'neurons attribute' and 'neurons test' create one with --job.)";

void AddPrompt(CLI::App& command, PromptFlags& flags) {
  command.add_option("--model", flags.model, "model, such as SmolLM2-135M-Instruct")->required();
  command
      .add_option("prompt", flags.words,
                  "the user's words, a message in the model's chat template unless --raw; - reads "
                  "standard input")
      ->required();
  AddSystem(command, flags.system);
  command.add_flag("--raw", flags.raw, "plain text: no chat template");
  command
      .add_option("--vector", flags.vectors,
                  "steer: NAME:coefficient@layers, such as vectors/ID:6@14 or file:v.f32:4@10-14; "
                  "repeatable")
      ->allow_extra_args(false);
  command
      .add_option("--edit", flags.edits,
                  "another change, in order behind --vector: add:NAME:6@14, "
                  "project_out:NAME+NAME:0.5@all, clamp:NAME:2.5@10-14/residual_mid, "
                  "scale_neurons:3/17+3/20:0.5@all, ablate_neurons:neuronSets/ID=shared@all, "
                  "ablate_neurons:2/1:MEANS@all/attention_heads, replace:file:x.f32@14, "
                  "add:file:x.f32:1@all/embedding; /SITE as listed below; repeatable")
      ->allow_extra_args(false);
  command.add_flag("--preserve_norm", flags.preserve_norm,
                   "after each --vector and --edit, rescale to the norm from before it");
  command.add_option("--scope", flags.scope, "tokens that --vector and --edit act on")
      ->check(CLI::IsMember({"from_last_prompt", "prompt", "generated", "last_prompt", "all"}))
      ->capture_default_str();
}

void AddModels(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* models = app.add_subcommand("models", "models of the server (list, get NAME)");
  static bool all_replicas = false;
  CLI::App* list = models->add_subcommand("list", "all models");
  list->add_flag("--all_replicas", all_replicas,
                 "also models that only other servers on the same store have loaded");
  list->callback([&] { action = [&globals] { return ListModels(globals, all_replicas); }; });
  CLI::App* get = models->add_subcommand("get", "one model: sizes, digests");
  static std::string name;
  get->add_option("name", name)->required();
  get->callback([&] { action = [&globals] { return GetModel(globals, name); }; });
  models->callback([&] {
    if (!action) action = [&globals] { return ListModels(globals, /*all_replicas=*/false); };
  });
}

void AddReplicas(CLI::App& app, const Globals& globals, Action& action) {
  app.add_subcommand("replicas", "servers on the same store, and the models that each has loaded")
      ->callback([&] { action = [&globals] { return ListReplicas(globals); }; });
}

void AddGenerate(CLI::App& app, const Globals& globals, Action& action) {
  static GenerateFlags flags;
  CLI::App* command = app.add_subcommand("generate", "generate text, steered or not, as it comes");
  AddPrompt(*command, flags.prompt);
  command->add_option("--max_tokens", flags.max_tokens, "most tokens to generate")
      ->capture_default_str();
  command->add_option("--temperature", flags.temperature, "0 is greedy")->capture_default_str();
  command->add_option("--top_p", flags.top_p, "keep the likeliest tokens up to this probability")
      ->capture_default_str();
  command->add_option("--top_k", flags.top_k, "keep this many likeliest tokens; 0 keeps all")
      ->capture_default_str();
  command
      ->add_option("--min_p", flags.min_p,
                   "keep tokens at least this fraction as likely as the likeliest")
      ->capture_default_str();
  command
      ->add_option("--repetition_penalty", flags.repetition_penalty,
                   "above 1, tokens seen before become less likely")
      ->capture_default_str();
  command->add_option("--seed", flags.seed, "the same seed draws the same tokens")->check(Seed());
  command->add_option("--n", flags.n, "completions")->capture_default_str();
  command->add_option(
      "--logprobs", flags.logprobs,
      "log-probabilities of the tokens, and of this many likeliest ones beside each");
  command->add_option("--stop", flags.stop, "string that ends the text; repeatable")
      ->allow_extra_args(false);
  command
      ->add_option("--stop_token_ids", flags.stop_token_ids,
                   "ids of tokens that end the text, separated by commas; repeatable")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_flag("--ignore_eos", flags.ignore_eos, "go on past the model's own stop tokens");
  command->footer(SitesHelp());
  command->callback([&] { action = [&globals] { return Generate(globals, flags); }; });
}

void AddCapture(CLI::App& app, const Globals& globals, Action& action) {
  static CaptureFlags flags;
  CLI::App* command =
      app.add_subcommand("capture", "activations of a prompt and its response: norms, or a file");
  AddPrompt(*command, flags.prompt);
  command->add_option("--response", flags.response, "text that follows the prompt");
  command->add_option("--site", flags.site, "as listed below")->capture_default_str();
  command->add_option("--layers", flags.layers, "14, 10-14, 3,5,7 or all")->capture_default_str();
  command->add_option("--tokens", flags.tokens, "all, prompt, response, last_prompt, last")
      ->capture_default_str();
  command->add_option("--reduction", flags.reduction, "none, mean, sum, max, last")
      ->capture_default_str();
  command->add_option("--out", flags.out, "write the rows as float32, in the table's order");
  command->footer(
      absl::StrCat("The prompt goes through the model's chat template, which often puts a default "
                   "system message\nbefore it; --raw captures the text alone, --system sets the "
                   "message.\n\n",
                   SitesHelp()));
  command->callback([&] { action = [&globals] { return Capture(globals, flags); }; });
}

void AddJobs(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* jobs = app.add_subcommand(
      "jobs",
      "long work that survives the server (submit, list, get, watch, download, cancel, retry, "
      "delete)");
  jobs->require_subcommand(1);
  jobs->footer(kJobsFooter);  // before its commands, which take it over
  static JobListFlags list_flags;
  CLI::App* list = jobs->add_subcommand("list", "jobs, newest first: all, or those that fit");
  list->add_option("--state", list_flags.states,
                   "in these states, separated by commas: queued, running, cancelling, succeeded, "
                   "failed, cancelled")
      ->delimiter(',')
      ->allow_extra_args(false);
  list->add_option("--kind", list_flags.kind, "of this kind, such as attribute_neurons");
  list->add_option("--model", list_flags.model, "that run on this model");
  list->add_option("--display_name", list_flags.display_name, "whose name begins so");
  list->add_option("--created_after", list_flags.created_after,
                   "since then: 2026-11-29, 2026-11-29T12:30:00Z, or how long ago: 36h, 2d");
  list->add_option("--created_before", list_flags.created_before, "and before then");
  list->callback([&] { action = [&globals] { return ListJobs(globals, list_flags); }; });
  static SubmitFlags submit_flags;
  CLI::App* submit = jobs->add_subcommand("submit", "any kind of job, from a file");
  submit
      ->add_option(
          "spec", submit_flags.path,
          "JSON mapping of JobSpec, such as {\"measure_texts\": {...}}; - is standard input")
      ->required();
  submit->add_option("--display_name", submit_flags.display_name, "name for people");
  AddSubmission(*submit, submit_flags.job);
  submit->callback([&] { action = [&globals] { return SubmitJob(globals, submit_flags); }; });
  static DownloadFlags download_flags;
  CLI::App* download = jobs->add_subcommand(
      "download", "all that one left, such as the files of a capture, into a folder");
  download->add_option("name", download_flags.name, "jobs/ID")->required();
  download->add_option("folder", download_flags.folder, "is made where it does not exist")
      ->required();
  download->callback([&] { action = [&globals] { return DownloadJob(globals, download_flags); }; });
  static std::string name;
  using JobCommand = int (*)(const Globals&, const std::string&);
  const auto add = [&](const char* verb, const char* help, JobCommand run) {
    CLI::App* command = jobs->add_subcommand(verb, help);
    command->add_option("name", name, "jobs/ID")->required();
    command->callback(
        [&action, &globals, run] { action = [&globals, run] { return run(globals, name); }; });
  };
  add("get", "one job and its results", GetJob);
  add("watch", "progress until it is finished", WatchJob);
  add("cancel", "ask it to stop", CancelJob);
  add("retry", "queue it again once it failed or was cancelled; what is done is kept", RetryJob);
  add("delete", "a finished one with its artifacts; vectors and neuron sets stay", DeleteJob);
}

void AddArtifacts(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* artifacts = app.add_subcommand("artifacts", "stored files (list, write, read)");
  artifacts->require_subcommand(1);
  static bool shared = false;
  CLI::App* list = artifacts->add_subcommand("list", "all artifacts");
  AddShared(*list, shared);
  list->callback([&] { action = [&globals] { return ListArtifacts(globals, shared); }; });
  static std::string write_path, media_type = "application/octet-stream";
  CLI::App* write = artifacts->add_subcommand("write", "store a file");
  write->add_option("path", write_path)->required();
  write->add_option("--media_type", media_type, "data sets: application/x-ndjson")
      ->capture_default_str();
  write->callback(
      [&] { action = [&globals] { return WriteArtifact(globals, write_path, media_type); }; });
  static ReadFlags flags;
  CLI::App* read = artifacts->add_subcommand("read", "fetch a file, checked");
  read->add_option("name", flags.name, "artifacts/ID")->required();
  read->add_option("path", flags.path, "where to; - is standard output")->capture_default_str();
  read->add_option("--format", flags.format, "arrow, arrow_stream: a data set as a table")
      ->check(CLI::IsMember({"stored", "arrow", "arrow_stream"}))
      ->capture_default_str();
  read->add_option("--lines", flags.lines,
                   "of a table: what its lines are, labelled_response by default")
      ->check(CLI::IsMember({"labelled_response", "questionnaire_item", "choice_question",
                             "tagged_response", "response_pair", "sweep_point"}));
  read->callback([&] { action = [&globals] { return ReadArtifact(globals, flags); }; });
}

void AddCompletion(CLI::App& app, Action& action) {
  CLI::App* completion = app.add_subcommand(
      "completion", "script that completes commands in a shell (bash, zsh, fish)");
  completion->require_subcommand(1);
  completion->footer("example, for this shell:\n  source <(valuescope completion bash)");
  const auto add = [&](const char* name, const char* help, Shell shell) {
    completion->add_subcommand(name, help)->callback([&app, &action, shell] {
      action = [&app, shell] {
        std::cout << CompletionScript(app, shell);
        return kOk;
      };
    });
  };
  add("bash", "source <(valuescope completion bash)", Shell::kBash);
  add("zsh", "valuescope completion zsh > a folder of $fpath/_valuescope", Shell::kZsh);
  add("fish", "valuescope completion fish | source", Shell::kFish);
}

void AddCredentials(CLI::App& app, Globals& globals) {
  CLI::Option* token =
      app.add_option("--token", globals.token, "bearer token")->envname("VALUESCOPE_TOKEN");
  app.add_option("--token_file", globals.token_file, "file of the bearer token")
      ->envname("VALUESCOPE_TOKEN_FILE")
      ->excludes(token);
  app.add_option(
         "--tls_ca", globals.tls.ca,
         "PEM file of roots that the server's certificate is checked against: connects with "
         "TLS")
      ->envname("VALUESCOPE_TLS_CA");
  CLI::Option* certificate = app.add_option("--tls_certificate", globals.tls.certificate,
                                            "PEM file of a certificate that tells who calls")
                                 ->envname("VALUESCOPE_TLS_CERTIFICATE");
  CLI::Option* key =
      app.add_option("--tls_key", globals.tls.key, "PEM file of the certificate's key")
          ->envname("VALUESCOPE_TLS_KEY");
  certificate->needs(key);
  key->needs(certificate);
}

void AddTokens(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* tokens = app.add_subcommand("tokens", "who may call a server (create)");
  tokens->require_subcommand(1);
  static TokenFlags flags;
  CLI::App* create = tokens->add_subcommand(
      "create", "a new bearer token, and its line for the server's --tokens file");
  create->add_option("--tenant", flags.tenant, "whose the token is")->required();
  create
      ->add_option("--role", flags.role, "reader looks, user makes and deletes, admin loads models")
      ->check(CLI::IsMember({"reader", "user", "admin"}))
      ->required();
  create->add_option("--name", flags.name, "for the server's log");
  create->footer(
      "Give the token to whoever is to call, and append the line to the file. Nobody can make the\n"
      "token of the line. A server that runs knows the token within 5 s.");
  create->callback([&] { action = [&globals] { return CreateToken(globals, flags); }; });
}

int Main(int argc, char** argv) {
  Globals globals;
  Action action;
  CLI::App app("valuescope: value mechanisms of language models, captured, attributed and steered",
               "valuescope");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--server", globals.server, "HOST:PORT")
      ->envname("VALUESCOPE_SERVER")
      ->capture_default_str();
  AddCredentials(app, globals);
  app.add_option("--timeout", globals.timeout_seconds,
                 "seconds; 0 is two minutes for lookups, an hour for work, a day for streams")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--json", globals.json, "JSON for programs instead of tables for people");
  AddModels(app, globals, action);
  AddReplicas(app, globals, action);
  AddGenerate(app, globals, action);
  AddCapture(app, globals, action);
  AddVectors(app, globals, action);
  AddNeurons(app, globals, action);
  AddEvaluations(app, globals, action);
  AddTextCommands(app, globals, action);
  AddJobs(app, globals, action);
  AddArtifacts(app, globals, action);
  AddTenantCommands(app, globals, action);
  AddTokens(app, globals, action);
  AddCompletion(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kOk : kUsageError;
  }
  HandleSignals();
  const int code = action();
  // What cannot be written is lost, and a script must not take it for done.
  if (std::cout.flush() || code != kOk) return code;
  std::cerr << "error: standard output cannot be written\n";
  return kServerError;
}

}  // namespace
}  // namespace valuescope::command_line

int main(int argc, char** argv) { return valuescope::command_line::Main(argc, argv); }
