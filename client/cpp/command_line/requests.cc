#include "requests.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "arguments.h"
#include "output.h"

namespace valuescope::command_line {

absl::StatusOr<v1::Prompt> MakePrompt(const PromptFlags& flags) {
  std::string text = absl::StrJoin(flags.words, " ");
  if (text == "-") {
    absl::StatusOr<std::string> input = ReadFile("-");
    if (!input.ok()) return input.status();
    text = *std::move(input);
  }
  v1::Prompt prompt;
  if (flags.raw) {
    if (flags.system)
      return absl::InvalidArgumentError("--raw has no chat, so --system means nothing");
    prompt.set_text(text);
    return prompt;
  }
  if (flags.system) {
    v1::Message* system = prompt.mutable_chat()->add_messages();
    system->set_role("system");
    system->set_content(*flags.system);
  }
  v1::Message* user = prompt.mutable_chat()->add_messages();
  user->set_role("user");
  user->set_content(text);
  return prompt;
}

absl::StatusOr<std::vector<ParsedEdit>> ParseEdits(const PromptFlags& flags) {
  std::vector<ParsedEdit> edits;
  const auto add = [&](absl::StatusOr<ParsedEdit> edit) {
    if (!edit.ok()) return edit.status();
    edit->intervention.set_preserve_norm(flags.preserve_norm);
    edits.push_back(*std::move(edit));
    return absl::OkStatus();
  };
  for (const std::string& text : flags.vectors) {
    if (absl::Status added = add(ParseSteering(text, flags.scope)); !added.ok()) return added;
  }
  for (const std::string& text : flags.edits) {
    if (absl::Status added = add(ParseEdit(text, flags.scope)); !added.ok()) return added;
  }
  return edits;
}

int ShapeFiles(Client& client, const std::string& model, std::vector<ParsedEdit>& edits) {
  const auto has_file = [](const ParsedEdit& edit) { return !edit.file.empty(); };
  if (std::none_of(edits.begin(), edits.end(), has_file)) return kOk;
  v1::GetModelRequest request;
  request.set_name(model);
  const auto response = client.GetModel(request);
  if (!response.ok()) return Fail(response.status());
  for (ParsedEdit& edit : edits) {
    if (!has_file(edit)) continue;
    if (const absl::Status status = ShapeRows(response->model(), edit); !status.ok()) {
      Fail(status);
      return kUsageError;
    }
  }
  return kOk;
}

absl::StatusOr<std::string> DataSetArtifact(Client& client, const std::string& data_set) {
  if (absl::StartsWith(data_set, "artifacts/")) return data_set;
  const absl::StatusOr<std::string> bytes = ReadFile(data_set);
  if (!bytes.ok()) return bytes.status();
  v1::WriteArtifactHeader header;
  header.set_media_type("application/x-ndjson");
  header.set_display_name(data_set.substr(data_set.find_last_of('/') + 1));
  absl::StatusOr<v1::Artifact> artifact = client.WriteArtifact(*bytes, header);
  if (!artifact.ok()) return artifact.status();
  return artifact->name();
}

absl::StatusOr<v1::Judge> MakeJudge(const JudgeFlags& flags, const std::string& model) {
  v1::Judge judge;
  if (flags.words.empty() == flags.rubric.empty()) {
    return absl::InvalidArgumentError("a judge needs --words or --rubric, one of the two");
  }
  if (!flags.words.empty()) {
    judge.mutable_word_list()->mutable_words()->Assign(flags.words.begin(), flags.words.end());
    return judge;
  }
  v1::RubricJudge& rubric = *judge.mutable_rubric();
  rubric.set_model(ResourceName("models", flags.judge_model.empty() ? model : flags.judge_model));
  rubric.set_rubric(flags.rubric);
  if (flags.threshold) rubric.set_threshold(*flags.threshold);
  return judge;
}

absl::StatusOr<v1::GeneratedResponses> MakeGeneration(const ExtractFlags& flags) {
  v1::GeneratedResponses generated;
  if (absl::StartsWith(flags.queries, "artifacts/")) {
    generated.set_queries_artifact(flags.queries);
  } else {
    const absl::StatusOr<std::string> text = ReadFile(flags.queries);
    if (!text.ok()) return text.status();
    for (absl::string_view line : absl::StrSplit(*text, '\n')) {
      line = absl::StripAsciiWhitespace(line);
      if (!line.empty()) generated.add_queries(std::string(line));
    }
  }
  generated.add_conditions()->mutable_system_messages()->Assign(flags.system_messages.begin(),
                                                                flags.system_messages.end());
  absl::StatusOr<v1::Judge> judge = MakeJudge(flags.judge, flags.model);
  if (!judge.ok()) return judge.status();
  *generated.mutable_judge() = *std::move(judge);
  if (flags.samples) generated.set_samples_per_query(*flags.samples);
  v1::SamplingParams& sampling = *generated.mutable_sampling();
  if (flags.max_tokens) sampling.set_max_tokens(*flags.max_tokens);
  if (flags.temperature) sampling.set_temperature(static_cast<float>(*flags.temperature));
  if (flags.seed) {
    sampling.set_seed(*flags.seed);
    generated.set_seed(*flags.seed);
  }
  return generated;
}

namespace {

// A projection on the vector or, without one, the response's log-probability. `flags` are of an
// attribution or of a test.
template <typename Flags>
v1::AttributionTarget TargetOf(const Flags& flags) {
  v1::AttributionTarget target;
  if (flags.vector.empty()) {
    target.mutable_continuation_logprob();
    return target;
  }
  v1::VectorProjectionTarget& projection = *target.mutable_vector_projection();
  projection.set_vector(ResourceName("vectors", flags.vector));
  if (flags.target_layer) projection.set_layer(*flags.target_layer);
  return target;
}

// INVALID_ARGUMENT for a method that there is not.
absl::Status ChooseMethod(const AttributeFlags& flags, v1::AttributeNeuronsRequest& request) {
  const std::string vector = flags.vector.empty() ? "" : ResourceName("vectors", flags.vector);
  if (flags.method == "direct_contribution") {
    request.set_vector(vector);
    request.mutable_direct_contribution();
    return absl::OkStatus();
  }
  if (flags.method == "activation_probability_difference") {
    request.set_vector(vector);
    request.mutable_activation_probability_difference()->set_definition(
        flags.definition == "gate" ? v1::ACTIVATION_DEFINITION_GATE
                                   : v1::ACTIVATION_DEFINITION_PRODUCT);
    return absl::OkStatus();
  }
  if (flags.method == "attribution_patching") {
    request.mutable_attribution_patching()->set_baseline(
        flags.baseline == "mean" ? v1::PATCHING_BASELINE_MEAN : v1::PATCHING_BASELINE_ZERO);
  } else if (flags.method == "integrated_gradients") {
    v1::IntegratedGradients& how = *request.mutable_integrated_gradients();
    if (flags.steps) how.set_steps(*flags.steps);
  } else if (flags.method == "log_probability_increase") {
    request.mutable_log_probability_increase()->set_recompute_norm_scale(
        flags.recompute_norm_scale);
  } else if (flags.method == "causal_ablation") {
    v1::CausalAblation& how = *request.mutable_causal_ablation();
    if (!flags.reference.empty()) {
      how.set_mode(v1::ABLATION_MODE_MEAN);
      how.set_reference(ResourceName("vectors", flags.reference));
    }
  } else {
    return absl::InvalidArgumentError("--method is '" + flags.method + "'; see --help");
  }
  *request.mutable_target() = TargetOf(flags);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::AttributeNeuronsRequest> MakeAttribution(Client& client,
                                                            const AttributeFlags& flags) {
  v1::AttributeNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  if (absl::Status method = ChooseMethod(flags, request); !method.ok()) return method;
  absl::StatusOr<v1::Layers> layers = ParseLayers(flags.layers);
  if (!layers.ok()) return layers.status();
  *request.mutable_layers() = *std::move(layers);
  absl::StatusOr<std::string> artifact = DataSetArtifact(client, flags.data_set);
  if (!artifact.ok()) return artifact.status();
  request.set_artifact(*std::move(artifact));
  return request;
}

absl::StatusOr<v1::TestNeuronsRequest> MakeNeuronTest(Client& client, const TestFlags& flags) {
  v1::TestNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  const absl::StatusOr<ParsedNeurons> neurons = ParseNeuronsOrSet(flags.neurons);
  if (!neurons.ok()) return neurons.status();
  neurons->PutInto(request);
  request.set_signed_scores(flags.signed_scores);
  const absl::StatusOr<v1::NeuronTest> test = ParseNeuronTest(flags.test);
  if (!test.ok()) return test.status();
  request.set_test(*test);
  if (flags.factor) request.set_factor(*flags.factor);
  if (!flags.mode.empty()) {
    const absl::StatusOr<v1::AblationMode> mode = ParseAblationMode(flags.mode);
    if (!mode.ok()) return mode.status();
    request.set_mode(*mode);
  }
  if (!flags.reference.empty()) request.set_reference(ResourceName("vectors", flags.reference));
  *request.mutable_target() = TargetOf(flags);
  request.mutable_sizes()->Assign(flags.sizes.begin(), flags.sizes.end());
  absl::StatusOr<v1::Layers> layers = ParseLayers(flags.layers);
  if (!layers.ok()) return layers.status();
  *request.mutable_layers() = *std::move(layers);
  if (!flags.tokens.empty()) {
    const absl::StatusOr<v1::TokenKind> tokens = ParseTokenKind(flags.tokens);
    if (!tokens.ok()) return tokens.status();
    request.mutable_tokens()->set_kind(*tokens);
  }
  if (flags.random_sets) request.set_random_sets(*flags.random_sets);
  request.set_seed(flags.seed);
  absl::StatusOr<std::string> artifact = DataSetArtifact(client, flags.data_set);
  if (!artifact.ok()) return artifact.status();
  request.set_artifact(*std::move(artifact));
  return request;
}

}  // namespace valuescope::command_line
