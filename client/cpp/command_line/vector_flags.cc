#include "commands.h"
#include "flags.h"
#include "text_commands.h"

namespace valuescope::command_line {
namespace {

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
  values->add_option("--null_samples", values_flags.null_samples, "100 .. 100000, default 1000");
  values->add_option("--seed", values_flags.seed, "of the null, default 0")->check(Seed());
  values->add_flag("--unit_deltas", values_flags.unit_deltas, "deltas count alike");
  values->callback([&] { action = [&globals] { return CompareValues(globals, values_flags); }; });
}

void AddGeneration(CLI::App& extract, ExtractFlags& flags) {
  CLI::Option* queries = extract.add_option(
      "--queries", flags.queries,
      "what the server answers and labels: a file with a query a line, or artifacts/ID");
  const auto add = [&](const char* name, auto& variable, const char* help) {
    return extract.add_option(name, variable, help)->needs(queries);
  };
  add("--system_message", flags.system_messages,
      "before every query; of several each gets one that is drawn; default an empty one");
  add("--expressing", flags.expressing,
      "system messages whose answers all express the value, so that nobody judges them");
  add("--not_expressing", flags.not_expressing, "system messages whose answers all do not");
  AddJudge(extract, flags.judge);
  for (const char* name : {"--words", "--rubric", "--judge_model", "--threshold"}) {
    extract.get_option(name)->needs(queries);
  }
  add("--samples", flags.samples, "answers a query, default 1");
  add("--max_tokens", flags.max_tokens, "of an answer, default 256");
  add("--temperature", flags.temperature, "of the draw, default 1; 0 is greedy");
  add("--seed", flags.seed, "of all draws, default 0")->check(Seed());
}

}  // namespace

void AddVectors(CLI::App& app, const Globals& globals, Action& action) {
  CLI::App* vectors = app.add_subcommand(
      "vectors", "value vectors (list, extract, decompose, compare, values, import, export)");
  vectors->require_subcommand(1);
  static bool shared = false;
  CLI::App* list = vectors->add_subcommand("list", "stored vectors");
  AddShared(*list, shared);
  list->callback([&] { action = [&globals] { return ListVectors(globals, shared); }; });
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
  extract->add_option("--value", flags.values,
                      "a vector each, of one pass: VALUE, whose `labels` divide the responses, or "
                      "VALUE@CONDITION,CONDITION, of responses under these alone");
  AddGeneration(*extract, flags);
  AddJobFlags(*extract, flags.job);
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

}  // namespace valuescope::command_line
