#include "requests.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
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
  if (edits.empty() && (flags.preserve_norm || flags.scope != PromptFlags().scope)) {
    return absl::InvalidArgumentError("--scope and --preserve_norm go with --vector or --edit");
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
      return FailUsage(status);
    }
  }
  return kOk;
}

int PlaceDataSet(Client& client, const std::string& data_set, std::string* artifact) {
  if (absl::StartsWith(data_set, "artifacts/")) {
    *artifact = data_set;
    return kOk;
  }
  const absl::StatusOr<std::string> bytes = ReadFile(data_set);
  if (!bytes.ok()) return FailUsage(bytes.status());
  v1::WriteArtifactHeader header;
  header.set_media_type("application/x-ndjson");
  header.set_display_name(data_set.substr(data_set.find_last_of('/') + 1));
  const absl::StatusOr<v1::Artifact> written = client.WriteArtifact(*bytes, header);
  if (!written.ok()) return Fail(written.status());
  *artifact = written->name();
  return kOk;
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

namespace {

// Whether there are answers that a judge has to label.
bool HasUnlabelled(const ExtractFlags& flags) {
  return !flags.system_messages.empty() ||
         (flags.expressing.empty() && flags.not_expressing.empty());
}

void AddConditions(const ExtractFlags& flags, v1::GeneratedResponses& generated) {
  const auto add = [&](const std::vector<std::string>& messages) -> v1::GenerationCondition& {
    v1::GenerationCondition& condition = *generated.add_conditions();
    condition.mutable_system_messages()->Assign(messages.begin(), messages.end());
    return condition;
  };
  if (HasUnlabelled(flags)) add(flags.system_messages);
  if (!flags.expressing.empty()) add(flags.expressing).set_expresses(true);
  if (!flags.not_expressing.empty()) add(flags.not_expressing).set_expresses(false);
}

absl::Status SetJudge(const ExtractFlags& flags, v1::GeneratedResponses& generated) {
  if (HasUnlabelled(flags)) {
    absl::StatusOr<v1::Judge> judge = MakeJudge(flags.judge, flags.model);
    if (!judge.ok()) return judge.status();
    *generated.mutable_judge() = *std::move(judge);
    return absl::OkStatus();
  }
  if (flags.judge.words.empty() && flags.judge.rubric.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "--words and --rubric go with answers that --expressing and --not_expressing do not label; "
      "give --system_message for such");
}

}  // namespace

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
  AddConditions(flags, generated);
  if (absl::Status judge = SetJudge(flags, generated); !judge.ok()) return judge;
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

// Of VALUE or VALUE@CONDITION,CONDITION.
v1::ValueVector ValueVectorOf(const std::string& word) {
  v1::ValueVector vector;
  const size_t at = word.find('@');
  vector.set_value(word.substr(0, at));
  if (at == std::string::npos) return vector;
  for (absl::string_view condition : absl::StrSplit(word.substr(at + 1), ',')) {
    vector.add_conditions(std::string(condition));
  }
  return vector;
}

}  // namespace

absl::StatusOr<v1::ExtractVectorsRequest> MakeExtraction(const ExtractFlags& flags) {
  v1::ExtractVectorsRequest request;
  if (flags.data_set.empty() == flags.queries.empty()) {
    return absl::InvalidArgumentError("give a data set or --queries, one of the two");
  }
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) return layers.status();
  *request.mutable_layers() = *layers;
  request.set_model(ResourceName("models", flags.model));
  request.set_display_name(flags.display_name);
  if (!flags.queries.empty()) {
    auto generated = MakeGeneration(flags);
    if (!generated.ok()) return generated.status();
    *request.mutable_generated() = *std::move(generated);
  }
  if (!flags.method.empty()) {
    const auto method = ParseExtractionMethod(flags.method);
    if (!method.ok()) return method.status();
    request.set_method(*method);
  }
  if (!flags.pooling.empty()) {
    const auto pooling = ParsePooling(flags.pooling);
    if (!pooling.ok()) return pooling.status();
    request.set_pooling(*pooling);
  }
  for (const std::string& word : flags.values) *request.add_vectors() = ValueVectorOf(word);
  if (flags.inverse_regularization) {
    request.set_inverse_regularization(*flags.inverse_regularization);
  }
  return request;
}

}  // namespace valuescope::command_line
