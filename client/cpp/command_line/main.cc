// valuescope: the command line. Flags become plain structs (commands.h); this file only declares
// them, those of evaluations stand in evaluation_flags.cc.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <iostream>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "arguments.h"
#include "commands.h"
#include "completion.h"
#include "flags.h"
#include "output.h"
#include "text_commands.h"

namespace valuescope::command_line {
namespace {

constexpr char kFooter[] = R"(examples:
  valuescope models
  valuescope generate --model SmolLM2-135M-Instruct --system "" "How should I spend a free Saturday?"
  valuescope generate --model SmolLM2-135M-Instruct --vector vectors/ID:6@14 "Plan my Sunday."
  valuescope jobs create --model SmolLM2-135M-Instruct --vector vectors/ID --watch responses.jsonl

--json prints one JSON document, or JSON Lines for lists and streams, with the contract's field names. Progress and remarks go to
standard error, the progress bar only to a terminal; there are no colours.

exit codes: 0 done, 1 the server failed or cannot be reached, 2 the command line is wrong,
3 the request was refused, 130 interrupted

'valuescope COMMAND --help' explains a command.)";

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
  models->add_subcommand("list", "all models")->callback([&] {
    action = [&globals] { return ListModels(globals); };
  });
  CLI::App* get = models->add_subcommand("get", "one model: sizes, digests");
  static std::string name;
  get->add_option("name", name)->required();
  get->callback([&] { action = [&globals] { return GetModel(globals, name); }; });
  models->callback([&] {
    if (!action) action = [&globals] { return ListModels(globals); };
  });
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
  command->add_option("--seed", flags.seed, "the same seed draws the same tokens")
      ->check(
          [](const std::string& text) -> std::string {
            uint64_t seed = 0;
            const bool digits = absl::c_all_of(text, absl::ascii_isdigit);
            return digits && absl::SimpleAtoi(text, &seed) ? "" : text + " is no seed";
          },
          "0 .. 18446744073709551615");
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

void AddVectorFiles(CLI::App& vectors, const Globals& globals, Action& action) {
  const auto formats = CLI::IsMember({"safetensors", "gguf"});
  static ImportFlags import_flags;
  CLI::App* in = vectors.add_subcommand("import", "store the vectors of a file");
  in->add_option("--model", import_flags.model)->required();
  in->add_option("path", import_flags.path, "- is standard input")->required();
  in->add_option("--format", import_flags.format)->check(formats)->capture_default_str();
  in->add_option("--convention", import_flags.convention,
                 "gguf: whose direction.N it is; default by the file, where it tells")
      ->check(CLI::IsMember({"llama_cpp", "cvector_generator", "repeng"}));
  in->add_option("--site", import_flags.site, "where the file does not tell")
      ->capture_default_str();
  in->add_option("--display_name", import_flags.display_name, "name for people");
  in->callback([&] { action = [&globals] { return ImportVectors(globals, import_flags); }; });
  static ExportFlags export_flags;
  CLI::App* out = vectors.add_subcommand("export", "vectors as one file, which import reads back");
  out->add_option("names", export_flags.names, "vectors/ID, exactly one for gguf")->required();
  out->add_option("--out", export_flags.path, "where to; - is standard output")
      ->capture_default_str();
  out->add_option("--format", export_flags.format, "gguf: a control vector for llama.cpp")
      ->check(formats)
      ->capture_default_str();
  out->add_option("--layers", export_flags.layers, "gguf has no layer 0")->capture_default_str();
  out->callback([&] { action = [&globals] { return ExportVectors(globals, export_flags); }; });
}

void AddComparisons(CLI::App& vectors, const Globals& globals, Action& action) {
  static CompareFlags compare_flags;
  CLI::App* compare =
      vectors.add_subcommand("compare", "cosines by layer, noise floors, and promoted tokens");
  compare->add_option("names", compare_flags.names, "vectors/ID")->required();
  compare->add_option("--layers", compare_flags.layers)->capture_default_str();
  compare
      ->add_option("--top_tokens", compare_flags.top_tokens,
                   "tokens at either end of the unembedding, 0 .. 100")
      ->capture_default_str();
  compare->callback(
      [&] { action = [&globals] { return CompareVectors(globals, compare_flags); }; });
  static ValuesFlags values_flags;
  CLI::App* values =
      vectors.add_subcommand("values", "several values: their mean delta and the circumplex");
  values->add_option("pairs", values_flags.pairs, "VALUE:INTRINSIC:PROMPTED, two vectors/ID")
      ->required();
  values->add_option("--layers", values_flags.layers)->capture_default_str();
  values
      ->add_option("--angles", values_flags.angles,
                   "where the circumplex expects Schwartz's values")
      ->check(CLI::IsMember({"ten", "nine", "four_domains", "none"}))
      ->capture_default_str();
  values->add_option("--null_samples", values_flags.null_samples, "100 .. 100000")
      ->capture_default_str();
  values->add_option("--seed", values_flags.seed, "of the null")->capture_default_str();
  values->add_flag("--unit_deltas", values_flags.unit_deltas, "deltas count alike");
  values->callback([&] { action = [&globals] { return CompareValues(globals, values_flags); }; });
}

void AddGeneration(CLI::App& extract, ExtractFlags& flags) {
  extract.add_option("--queries", flags.queries,
                     "what the server answers and labels: a file with a query a line, or "
                     "artifacts/ID");
  extract.add_option("--system_message", flags.system_messages,
                     "before every query; of several each gets one that is drawn; default an empty "
                     "one");
  AddJudge(extract, flags.judge);
  extract.add_option("--samples", flags.samples, "answers a query, default 1");
  extract.add_option("--max_tokens", flags.max_tokens, "of an answer, default 256");
  extract.add_option("--temperature", flags.temperature, "of the draw, default 1; 0 is greedy");
  extract.add_option("--seed", flags.seed, "of all draws, default 0");
}

void AddVectors(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* vectors = app.add_subcommand(
      "vectors", "value vectors (list, extract, decompose, compare, values, import, export)");
  vectors->require_subcommand(1);
  vectors->add_subcommand("list", "stored vectors")->callback([&] {
    action = [&globals] { return ListVectors(globals); };
  });
  static ExtractFlags flags;
  CLI::App* extract =
      vectors->add_subcommand("extract", "the direction that tells labelled responses apart");
  extract->add_option("--model", flags.model)->required();
  extract->add_option("data_set", flags.data_set,
                      "file of JSON Lines, or artifacts/ID; or let the server answer --queries");
  extract->add_option("--layers", flags.layers)->capture_default_str();
  extract->add_option("--method", flags.method,
                      "difference_in_means (default), pca, pca_centered, linear_probe");
  extract->add_option("--inverse_regularization", flags.inverse_regularization,
                      "linear_probe: C, default 1");
  extract->add_option("--pooling", flags.pooling,
                      "response_mean (default), token_mean, last_token, last_prompt_token");
  extract->add_option("--display_name", flags.display_name, "name for people");
  AddGeneration(*extract, flags);
  extract->callback([&] { action = [&globals] { return ExtractVectors(globals, flags); }; });
  static std::string intrinsic, prompted;
  CLI::App* decompose =
      vectors->add_subcommand("decompose", "shared and unique parts of two vectors");
  decompose->add_option("intrinsic", intrinsic)->required();
  decompose->add_option("prompted", prompted)->required();
  decompose->callback(
      [&] { action = [&globals] { return DecomposeVectors(globals, intrinsic, prompted); }; });
  AddVectorFiles(*vectors, globals, action);
  AddComparisons(*vectors, globals, action);
}

void AddAttribution(CLI::App& command, AttributeFlags& flags) {
  command.add_option("--model", flags.model)->required();
  command
      .add_option("--method", flags.method,
                  "direct_contribution, activation_probability_difference, attribution_patching, "
                  "integrated_gradients, log_probability_increase or causal_ablation")
      ->capture_default_str();
  command.add_option("--vector", flags.vector,
                     "vectors/ID that is contributed to, or the target of patching, integrated "
                     "gradients and ablation; without it theirs is the response's log-probability");
  command.add_option("--target_layer", flags.target_layer,
                     "block behind which the target is read, with its row of --vector");
  command.add_option("--baseline", flags.baseline, "of attribution_patching: zero or mean")
      ->check(CLI::IsMember({"zero", "mean"}))
      ->capture_default_str();
  command
      .add_option("--definition", flags.definition,
                  "of activation_probability_difference, what is above 0: product or gate")
      ->check(CLI::IsMember({"product", "gate"}))
      ->capture_default_str();
  command.add_option("--steps", flags.steps,
                     "of integrated_gradients; default: until the scores are stable");
  command.add_option("--reference", flags.reference,
                     "of causal_ablation, vectors/ID of site MLP_NEURONS whose rows take the "
                     "neurons' place; default 0");
  command.add_flag("--recompute_norm_scale", flags.recompute_norm_scale,
                   "of log_probability_increase: the final norm's scale, with the neuron added");
  command.add_option("data_set", flags.data_set, "file of JSON Lines, or artifacts/ID")->required();
  command.add_option("--layers", flags.layers)->capture_default_str();
}

void AddNeuronSets(CLI::App& neurons, const Globals& globals, Action& action) {
  static SelectivityFlags selectivity_flags;
  CLI::App* selectivity = neurons.add_subcommand(
      "selectivity", "neurons that are active for some values and not for others, from their sets");
  selectivity
      ->add_option("names", selectivity_flags.names,
                   "neuronSets/ID of activation_probability_difference, one a value")
      ->required();
  selectivity->add_option("--activity_percentile", selectivity_flags.activity_percentile,
                          "of all probabilities, which members reach; default 95");
  selectivity->add_option("--top_percent", selectivity_flags.top_percent,
                          "of all neurons are members at most; default 1");
  selectivity->add_option("--top_k", selectivity_flags.top_k, "members shown; default 100");
  selectivity->add_option("--display_name", selectivity_flags.display_name, "name for people");
  selectivity->callback(
      [&] { action = [&globals] { return ScoreSelectivity(globals, selectivity_flags); }; });
  static CompareSetsFlags compare_flags;
  CLI::App* compare =
      neurons.add_subcommand("compare", "overlaps of neuron sets, beside those of random ones");
  compare->add_option("sets", compare_flags.sets, "neuronSets/ID, or neuronSets/ID=class")
      ->required();
  compare->add_option("--top_per_layer", compare_flags.top_per_layer,
                      "instead of the members this many neurons of each layer");
  compare->add_flag("--by_layer", compare_flags.by_layer, "each layer too");
  compare->callback(
      [&] { action = [&globals] { return CompareNeuronSets(globals, compare_flags); }; });
}

void AddContexts(CLI::App& neurons, const Globals& globals, Action& action) {
  static ContextsFlags flags;
  CLI::App* contexts =
      neurons.add_subcommand("contexts", "texts of a data set in which neurons are most active");
  contexts->add_option("--model", flags.model)->required();
  contexts->add_option("--neurons", flags.neurons, "LAYER/INDEX, or several: 3/17+3/20")
      ->required();
  contexts->add_option("data_set", flags.data_set, "file of JSON Lines, or artifacts/ID")
      ->required();
  contexts->add_option("--tokens", flags.tokens, "tokens searched: all, prompt, response, ...")
      ->capture_default_str();
  contexts->add_option("--top_k", flags.top_k, "texts a neuron; default 10");
  contexts->add_option("--window", flags.window, "tokens shown before and after; default 10");
  contexts->callback([&] { action = [&globals] { return TopContexts(globals, flags); }; });
}

void AddNeuronTest(CLI::App& neurons, const Globals& globals, Action& action) {
  static TestFlags flags;
  CLI::App* test = neurons.add_subcommand(
      "test", "what they cause: a target without, with only, or with scaled neurons");
  test->add_option("--model", flags.model)->required();
  test->add_option("neurons", flags.neurons,
                   "best first: LAYER/INDEX+LAYER/INDEX, neuronSets/ID or neuronSets/ID=CLASS")
      ->required();
  test->add_option("data_set", flags.data_set, "file of JSON Lines, or artifacts/ID")->required();
  test->add_option("--test", flags.test, "remove, keep_only or scale")->capture_default_str();
  test->add_option("--factor", flags.factor, "of scale");
  test->add_option("--mode", flags.mode, "what takes a neuron's place: mean (default) or zero");
  test->add_option("--reference", flags.reference,
                   "vectors/ID of means; default: of the responses that do not express");
  test->add_option("--vector", flags.vector,
                   "vectors/ID, the target; without it that is the response's log-probability");
  test->add_option("--target_layer", flags.target_layer,
                   "block behind which the target is read, with its row of --vector");
  test->add_option("--sizes", flags.sizes, "numbers of neurons; default 1,2,4,... and all")
      ->delimiter(',');
  test->add_option("--layers", flags.layers)->capture_default_str();
  test->add_option("--tokens", flags.tokens,
                   "where neurons are changed; default: all tokens but the first");
  test->add_option("--random_sets", flags.random_sets, "drawn for each size; default 100");
  test->add_option("--seed", flags.seed, "of the draw")->capture_default_str();
  test->add_flag("--signed_scores", flags.signed_scores, "ranks by the score and not by its size");
  test->callback([&] { action = [&globals] { return TestNeurons(globals, flags); }; });
}

void AddNeurons(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* neurons = app.add_subcommand(
      "neurons", "value neurons (classify, attribute, test, selectivity, compare, contexts)");
  neurons->require_subcommand(1);
  static ClassifyFlags classify_flags;
  CLI::App* classify =
      neurons->add_subcommand("classify", "by write direction, against two vectors");
  classify->add_option("--model", classify_flags.model)->required();
  classify->add_option("--intrinsic", classify_flags.intrinsic, "vectors/ID")->required();
  classify->add_option("--prompted", classify_flags.prompted, "vectors/ID")->required();
  classify->add_option("--layers", classify_flags.layers)->capture_default_str();
  classify->add_option("--top_percent", classify_flags.top_percent, "neurons kept in a layer")
      ->capture_default_str();
  classify->callback(
      [&] { action = [&globals] { return ClassifyNeurons(globals, classify_flags); }; });
  static AttributeFlags attribute_flags;
  CLI::App* attribute =
      neurons->add_subcommand("attribute", "scores over a data set by one method, at once");
  AddAttribution(*attribute, attribute_flags);
  attribute->callback(
      [&] { action = [&globals] { return AttributeNeurons(globals, attribute_flags); }; });
  AddNeuronSets(*neurons, globals, action);
  AddContexts(*neurons, globals, action);
  AddNeuronTest(*neurons, globals, action);
}

template <typename Flags>
void AddJobFlags(CLI::App& command, Flags& flags) {
  command.add_option("--display_name", flags.display_name, "name for people");
  command.add_flag("--validate_only", flags.validate_only, "check and estimate, run nothing");
  command.add_flag("--watch", flags.watch, "show progress until it is finished");
}

void AddJobs(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* jobs = app.add_subcommand(
      "jobs", "long work that survives the server (create, submit, list, get, watch, cancel)");
  jobs->require_subcommand(1);
  jobs->add_subcommand("list", "all jobs")->callback([&] {
    action = [&globals] { return ListJobs(globals); };
  });
  static AttributeFlags flags;
  CLI::App* create = jobs->add_subcommand("create", "attribute neurons over a data set");
  AddAttribution(*create, flags);
  AddJobFlags(*create, flags);
  create->callback([&] { action = [&globals] { return CreateAttributionJob(globals, flags); }; });
  static SubmitFlags submit_flags;
  CLI::App* submit = jobs->add_subcommand("submit", "any kind of job, from a file");
  submit
      ->add_option(
          "spec", submit_flags.path,
          "JSON mapping of JobSpec, such as {\"measure_texts\": {...}}; - is standard input")
      ->required();
  AddJobFlags(*submit, submit_flags);
  submit->callback([&] { action = [&globals] { return SubmitJob(globals, submit_flags); }; });
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
}

void AddArtifacts(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* artifacts = app.add_subcommand("artifacts", "stored files (list, write, read)");
  artifacts->require_subcommand(1);
  artifacts->add_subcommand("list", "all artifacts")->callback([&] {
    action = [&globals] { return ListArtifacts(globals); };
  });
  static std::string write_path, media_type = "application/octet-stream";
  CLI::App* write = artifacts->add_subcommand("write", "store a file");
  write->add_option("path", write_path)->required();
  write->add_option("--media_type", media_type, "data sets: application/x-ndjson")
      ->capture_default_str();
  write->callback(
      [&] { action = [&globals] { return WriteArtifact(globals, write_path, media_type); }; });
  static std::string name, read_path = "-";
  CLI::App* read = artifacts->add_subcommand("read", "fetch a file, checked");
  read->add_option("name", name, "artifacts/ID")->required();
  read->add_option("path", read_path, "where to; - is standard output")->capture_default_str();
  read->callback([&] { action = [&globals] { return ReadArtifact(globals, name, read_path); }; });
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
  app.add_option("--token", globals.token, "bearer token")->envname("VALUESCOPE_TOKEN");
  app.add_option("--timeout", globals.timeout_seconds,
                 "seconds; 0 is two minutes for lookups, an hour for work, a day for streams")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--json", globals.json, "JSON for programs instead of tables for people");
  AddModels(app, globals, action);
  AddGenerate(app, globals, action);
  AddCapture(app, globals, action);
  AddVectors(app, globals, action);
  AddNeurons(app, globals, action);
  AddEvaluations(app, globals, action);
  AddTextCommands(app, globals, action);
  AddJobs(app, globals, action);
  AddArtifacts(app, globals, action);
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
