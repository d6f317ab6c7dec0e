#include "commands.h"
#include "flags.h"

namespace valuescope::command_line {
namespace {

void AddTarget(CLI::App& command, TargetFlags& flags, const char* vector) {
  command.add_option("--vector", flags.vector, vector);
  command.add_option("--target_layer", flags.layer,
                     "block behind which the target is read, with its row of --vector");
  command
      .add_option("--positive", flags.positive,
                  "token, an id or a text of one token, whose logit less that of --negative is the "
                  "target; repeatable, for the mean of several")
      ->allow_extra_args(false);
  command.add_option("--negative", flags.negative, "the other side; without it 0")
      ->allow_extra_args(false);
}

// Flags that some methods have and others do not.
void AddMethodFlags(CLI::App& command, AttributeFlags& flags) {
  command.add_option("--source_layer", flags.source_layer,
                     "of direct_contribution: the row of --vector for all blocks scored, which are "
                     "those that can have written it; default each block's own");
  command
      .add_option("--baseline", flags.baseline, "of attribution_patching: zero (default) or mean")
      ->check(CLI::IsMember({"zero", "mean"}));
  command
      .add_option(
          "--definition", flags.definition,
          "of activation_probability_difference, what is above 0: product (default) or gate")
      ->check(CLI::IsMember({"product", "gate"}));
  CLI::Option* steps = command.add_option(
      "--steps", flags.steps, "of integrated_gradients; default: until the scores are stable");
  command
      .add_option("--tolerance", flags.tolerance,
                  "of integrated_gradients, when scores are stable; default .001")
      ->excludes(steps);
  command
      .add_option("--max_steps", flags.max_steps,
                  "of integrated_gradients, until they are; default 324")
      ->excludes(steps);
  command.add_option("--reference", flags.reference,
                     "of causal_ablation, vectors/ID of site MLP_NEURONS whose rows take the "
                     "neurons' place; default 0");
  command.add_option("--candidates", flags.candidates,
                     "of causal_ablation, the only neurons scored: LAYER/INDEX+LAYER/INDEX");
  command.add_option(
      "--tokens", flags.tokens,
      "of patching, integrated gradients and ablation, where neurons are attributed: "
      "all, prompt, response, last_prompt, last");
  command.add_flag("--recompute_norm_scale", flags.recompute_norm_scale,
                   "of log_probability_increase: the final norm's scale, with the neuron added");
}

void AddAttribution(CLI::App& neurons, const Globals& globals, Action& action) {
  static AttributeFlags flags;
  CLI::App* attribute = neurons.add_subcommand("attribute", "scores over a data set by one method");
  attribute->add_option("--model", flags.model)->required();
  attribute
      ->add_option("--method", flags.method,
                   "direct_contribution, activation_probability_difference, attribution_patching, "
                   "integrated_gradients, log_probability_increase or causal_ablation")
      ->capture_default_str();
  AddTarget(
      *attribute, flags.target,
      "vectors/ID that is contributed to, or the target of patching, integrated gradients and "
      "ablation; without a target theirs is the response's log-probability");
  AddMethodFlags(*attribute, flags);
  attribute->add_option("data_set", flags.data_set, "file of JSON Lines, or artifacts/ID")
      ->required();
  attribute->add_option("--layers", flags.layers)->capture_default_str();
  attribute->add_option("--top_k", flags.top_k, "members of the set; default 100");
  attribute->add_option("--display_name", flags.display_name, "name for people");
  AddJobFlags(*attribute, flags.job);
  attribute->callback([&] { action = [&globals] { return AttributeNeurons(globals, flags); }; });
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
                   "best first: LAYER/INDEX+LAYER/INDEX, neuronSets/ID or neuronSets/ID=CLASS; of "
                   "several with labels LABEL:RANKING,LABEL:RANKING, over the same responses")
      ->required();
  test->add_option("data_set", flags.data_set, "file of JSON Lines, or artifacts/ID")->required();
  test->add_option("--test", flags.test, "remove, keep_only or scale")->capture_default_str();
  test->add_option("--factor", flags.factor, "of scale, which needs it");
  test->add_option("--mode", flags.mode,
                   "of remove and keep_only, what takes a neuron's place: mean (default) or zero");
  test->add_option("--reference", flags.reference,
                   "vectors/ID of means; default: of the responses that do not express");
  AddTarget(*test, flags.target,
            "vectors/ID, the target; without one that is the response's log-probability");
  test->add_option("--sizes", flags.sizes, "numbers of neurons; default 1,2,4,... and all")
      ->delimiter(',');
  test->add_option("--layers", flags.layers)->capture_default_str();
  test->add_option("--tokens", flags.tokens,
                   "where neurons are changed; default: all tokens but the first");
  test->add_option("--random_sets", flags.random_sets, "drawn for each size; default 100");
  test->add_option("--seed", flags.seed, "of the draw")->check(Seed())->capture_default_str();
  test->add_flag("--signed_scores", flags.signed_scores, "ranks by the score and not by its size");
  CLI::Option* display_name =
      test->add_option("--display_name", flags.display_name, "of --job: name for people");
  AddJobFlags(*test, flags.job);
  display_name->needs(test->get_option("--job"));
  test->callback([&] { action = [&globals] { return TestNeurons(globals, flags); }; });
}

}  // namespace

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
  AddAttribution(*neurons, globals, action);
  AddNeuronSets(*neurons, globals, action);
  AddContexts(*neurons, globals, action);
  AddNeuronTest(*neurons, globals, action);
}

}  // namespace valuescope::command_line
