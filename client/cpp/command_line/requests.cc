#include "requests.h"

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "arguments.h"

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

absl::StatusOr<v1::AttributeNeuronsRequest> MakeAttribution(Client& client,
                                                            const AttributeFlags& flags) {
  v1::AttributeNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.set_vector(ResourceName("vectors", flags.vector));
  request.mutable_direct_contribution();
  absl::StatusOr<v1::Layers> layers = ParseLayers(flags.layers);
  if (!layers.ok()) return layers.status();
  *request.mutable_layers() = *std::move(layers);
  absl::StatusOr<std::string> artifact = DataSetArtifact(client, flags.data_set);
  if (!artifact.ok()) return artifact.status();
  request.set_artifact(*std::move(artifact));
  return request;
}

}  // namespace valuescope::command_line
