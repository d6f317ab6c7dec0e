// Requests about neurons: what is attributed or measured, and which flags a method or a test has.
#include <array>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

constexpr char kDirect[] = "direct_contribution";
constexpr char kActive[] = "activation_probability_difference";
constexpr char kPatching[] = "attribution_patching";
constexpr char kGradients[] = "integrated_gradients";
constexpr char kIncrease[] = "log_probability_increase";
constexpr char kAblation[] = "causal_ablation";
constexpr std::array<absl::string_view, 6> kMethods = {kDirect,    kActive,   kPatching,
                                                       kGradients, kIncrease, kAblation};

// A flag that some choices of another flag have and others do not.
struct FlagOfChoices {
  absl::string_view name;
  bool is_given;
  std::vector<absl::string_view> choices;
};

// INVALID_ARGUMENT where one is given without a choice that has it, such as `choice` of --method.
absl::Status CheckFlags(const std::vector<FlagOfChoices>& flags, absl::string_view of,
                        absl::string_view choice) {
  for (const FlagOfChoices& flag : flags) {
    if (!flag.is_given || absl::c_linear_search(flag.choices, choice)) continue;
    return absl::InvalidArgumentError(absl::StrCat(flag.name, " goes with ", of, " ",
                                                   absl::StrJoin(flag.choices, " or "),
                                                   ", not with ", choice));
  }
  return absl::OkStatus();
}

absl::Status CheckMethodFlags(const AttributeFlags& flags) {
  if (!absl::c_linear_search(kMethods, flags.method)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", flags.method, "' is not a method; choose one of ", absl::StrJoin(kMethods, ", ")));
  }
  const TargetFlags& target = flags.target;
  return CheckFlags(
      {{"--vector", !target.vector.empty(), {kDirect, kPatching, kGradients, kAblation}},
       {"--target_layer", target.layer.has_value(), {kPatching, kGradients, kAblation}},
       {"--positive", !target.positive.empty(), {kPatching, kGradients, kAblation}},
       {"--negative", !target.negative.empty(), {kPatching, kGradients, kAblation}},
       {"--source_layer", flags.source_layer.has_value(), {kDirect}},
       {"--baseline", !flags.baseline.empty(), {kPatching}},
       {"--definition", !flags.definition.empty(), {kActive}},
       {"--steps", flags.steps.has_value(), {kGradients}},
       {"--tolerance", flags.tolerance.has_value(), {kGradients}},
       {"--max_steps", flags.max_steps.has_value(), {kGradients}},
       {"--reference", !flags.reference.empty(), {kAblation}},
       {"--candidates", !flags.candidates.empty(), {kAblation}},
       {"--tokens", !flags.tokens.empty(), {kPatching, kGradients, kAblation}},
       {"--recompute_norm_scale", flags.recompute_norm_scale, {kIncrease}}},
      "--method", flags.method);
}

// The tokens of a difference of logits are left to PlaceTokens.
absl::StatusOr<v1::AttributionTarget> TargetOf(const TargetFlags& flags) {
  v1::AttributionTarget target;
  if (flags.layer && flags.vector.empty()) {
    return absl::InvalidArgumentError("--target_layer goes with --vector");
  }
  if (!flags.negative.empty() && flags.positive.empty()) {
    return absl::InvalidArgumentError("--negative goes with --positive");
  }
  if (!flags.positive.empty()) {
    if (!flags.vector.empty()) {
      return absl::InvalidArgumentError("--vector and --positive are two targets; give one");
    }
    target.mutable_token_logit_difference();
    return target;
  }
  if (flags.vector.empty()) {
    target.mutable_continuation_logprob();
    return target;
  }
  if (!flags.layer) {
    return absl::InvalidArgumentError(
        "--vector as a target needs --target_layer, the block behind which it is read");
  }
  v1::VectorProjectionTarget& projection = *target.mutable_vector_projection();
  projection.set_vector(ResourceName("vectors", flags.vector));
  projection.set_layer(*flags.layer);
  return target;
}

// Leaves the server's default where no tokens are named.
template <typename Message>
absl::Status SetTokens(const std::string& name, Message& message) {
  if (name.empty()) return absl::OkStatus();
  const absl::StatusOr<v1::TokenKind> kind = ParseTokenKind(name);
  if (!kind.ok()) return kind.status();
  message.mutable_tokens()->set_kind(*kind);
  return absl::OkStatus();
}

absl::Status SetAblation(const AttributeFlags& flags, v1::CausalAblation& how) {
  if (!flags.reference.empty()) {
    how.set_mode(v1::ABLATION_MODE_MEAN);
    how.set_reference(ResourceName("vectors", flags.reference));
  }
  if (!flags.candidates.empty()) {
    const absl::StatusOr<std::vector<v1::NeuronId>> neurons = ParseNeurons(flags.candidates);
    if (!neurons.ok()) return neurons.status();
    how.mutable_candidates()->Assign(neurons->begin(), neurons->end());
  }
  return SetTokens(flags.tokens, how);
}

// Everything that a method has but its target.
absl::Status SetMethod(const AttributeFlags& flags, v1::AttributeNeuronsRequest& request) {
  if (flags.method == kDirect) {
    if (flags.target.vector.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--method ", kDirect, " needs --vector"));
    }
    request.set_vector(ResourceName("vectors", flags.target.vector));
    if (flags.source_layer) request.set_source_layer(*flags.source_layer);
    request.mutable_direct_contribution();
  } else if (flags.method == kActive) {
    v1::ActivationProbabilityDifference& how = *request.mutable_activation_probability_difference();
    if (flags.definition == "gate") how.set_definition(v1::ACTIVATION_DEFINITION_GATE);
  } else if (flags.method == kPatching) {
    v1::AttributionPatching& how = *request.mutable_attribution_patching();
    if (flags.baseline == "mean") how.set_baseline(v1::PATCHING_BASELINE_MEAN);
    return SetTokens(flags.tokens, how);
  } else if (flags.method == kGradients) {
    v1::IntegratedGradients& how = *request.mutable_integrated_gradients();
    if (flags.steps) how.set_steps(*flags.steps);
    if (flags.tolerance) how.set_tolerance(*flags.tolerance);
    if (flags.max_steps) how.set_max_steps(*flags.max_steps);
    return SetTokens(flags.tokens, how);
  } else if (flags.method == kIncrease) {
    request.mutable_log_probability_increase()->set_recompute_norm_scale(
        flags.recompute_norm_scale);
  } else {
    return SetAblation(flags, *request.mutable_causal_ablation());
  }
  return absl::OkStatus();
}

// Which neurons: one ranking, or several with labels, "LABEL:RANKING,LABEL:RANKING".
absl::Status SetRankings(const TestFlags& flags, v1::TestNeuronsRequest& request) {
  if (!absl::StrContains(flags.neurons, ':')) {
    const absl::StatusOr<ParsedNeurons> neurons = ParseNeuronsOrSet(flags.neurons);
    if (!neurons.ok()) return neurons.status();
    neurons->PutInto(request);
    request.set_signed_scores(flags.signed_scores);
    return absl::OkStatus();
  }
  for (const absl::string_view one : absl::StrSplit(flags.neurons, ',')) {
    if (!absl::StrContains(one, ':')) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", one, "' lacks its label: of several rankings write LABEL:RANKING"));
    }
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(one, absl::MaxSplits(':', 1));
    const absl::StatusOr<ParsedNeurons> neurons = ParseNeuronsOrSet(parts.second);
    if (!neurons.ok()) return neurons.status();
    v1::NeuronRanking& ranking = *request.add_rankings();
    ranking.set_label(std::string(parts.first));
    neurons->PutInto(ranking);
    ranking.set_signed_scores(flags.signed_scores);
  }
  return absl::OkStatus();
}

// What is done to neurons, but not to which.
absl::Status SetTest(const TestFlags& flags, v1::TestNeuronsRequest& request) {
  const absl::StatusOr<v1::NeuronTest> test = ParseNeuronTest(flags.test);
  if (!test.ok()) return test.status();
  request.set_test(*test);
  const std::vector<absl::string_view> ablating = {"remove", "keep_only"};
  absl::Status flags_of_test = CheckFlags({{"--factor", flags.factor.has_value(), {"scale"}},
                                           {"--mode", !flags.mode.empty(), ablating},
                                           {"--reference", !flags.reference.empty(), ablating}},
                                          "--test", absl::AsciiStrToLower(flags.test));
  if (!flags_of_test.ok()) return flags_of_test;
  if (*test == v1::NEURON_TEST_SCALE && !flags.factor) {
    return absl::InvalidArgumentError("--test scale needs --factor");
  }
  if (flags.factor) request.set_factor(*flags.factor);
  if (!flags.mode.empty()) {
    const absl::StatusOr<v1::AblationMode> mode = ParseAblationMode(flags.mode);
    if (!mode.ok()) return mode.status();
    request.set_mode(*mode);
  }
  if (!flags.reference.empty()) request.set_reference(ResourceName("vectors", flags.reference));
  return SetTokens(flags.tokens, request);
}

// An id, or a text that is one token of the model. Prints what is wrong; returns an exit code.
int AddToken(Client& client, const std::string& model, const std::string& text,
             google::protobuf::RepeatedField<int32_t>& ids) {
  int32_t id = 0;
  if (absl::c_all_of(text, absl::ascii_isdigit) && absl::SimpleAtoi(text, &id)) {
    ids.Add(id);
    return kOk;
  }
  v1::TokenizeRequest request;
  request.set_model(model);
  request.mutable_prompt()->set_text(text);
  request.set_add_special_tokens(false);
  const absl::StatusOr<v1::TokenizeResponse> response = client.Tokenize(request);
  if (!response.ok()) return Fail(response.status());
  if (response->token_ids_size() != 1) {
    return FailUsage(absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is ", response->token_ids_size(), " tokens (",
                     absl::StrJoin(response->pieces(), " "), "); write a text of one, or an id")));
  }
  ids.Add(response->token_ids(0));
  return kOk;
}

}  // namespace

absl::StatusOr<v1::AttributeNeuronsRequest> MakeAttribution(const AttributeFlags& flags) {
  v1::AttributeNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  if (absl::Status given = CheckMethodFlags(flags); !given.ok()) return given;
  if (absl::Status method = SetMethod(flags, request); !method.ok()) return method;
  if (flags.method != kDirect && flags.method != kActive) {
    absl::StatusOr<v1::AttributionTarget> target = TargetOf(flags.target);
    if (!target.ok()) return target.status();
    *request.mutable_target() = *std::move(target);
  }
  absl::StatusOr<v1::Layers> layers = ParseLayers(flags.layers);
  if (!layers.ok()) return layers.status();
  *request.mutable_layers() = *std::move(layers);
  if (flags.top_k) request.set_top_k(*flags.top_k);
  request.set_display_name(flags.display_name);
  return request;
}

absl::StatusOr<v1::TestNeuronsRequest> MakeNeuronTest(const TestFlags& flags) {
  v1::TestNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  if (absl::Status ranked = SetRankings(flags, request); !ranked.ok()) return ranked;
  if (absl::Status test = SetTest(flags, request); !test.ok()) return test;
  absl::StatusOr<v1::AttributionTarget> target = TargetOf(flags.target);
  if (!target.ok()) return target.status();
  *request.mutable_target() = *std::move(target);
  request.mutable_sizes()->Assign(flags.sizes.begin(), flags.sizes.end());
  absl::StatusOr<v1::Layers> layers = ParseLayers(flags.layers);
  if (!layers.ok()) return layers.status();
  *request.mutable_layers() = *std::move(layers);
  if (flags.random_sets) request.set_random_sets(*flags.random_sets);
  request.set_seed(flags.seed);
  request.set_display_name(flags.display_name);
  return request;
}

int PlaceTokens(Client& client, const std::string& model, const TargetFlags& flags,
                v1::AttributionTarget& target) {
  if (!target.has_token_logit_difference()) return kOk;
  v1::TokenLogitDifferenceTarget& difference = *target.mutable_token_logit_difference();
  for (const auto& [texts, ids] :
       {std::pair(&flags.positive, difference.mutable_positive_token_ids()),
        std::pair(&flags.negative, difference.mutable_negative_token_ids())}) {
    for (const std::string& text : *texts) {
      if (const int code = AddToken(client, model, text, *ids); code != kOk) return code;
    }
  }
  return kOk;
}

}  // namespace valuescope::command_line
