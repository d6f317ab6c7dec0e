// Changes of activations as words of the command line; see ParseEdit in arguments.h.
#include <cmath>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "arguments.h"

namespace valuescope::command_line {
namespace {

constexpr char kForms[] =
    "add:NAME:coefficient@layers, project_out:NAME+NAME:strength@layers, clamp:NAME:value@layers, "
    "scale_neurons:NEURONS:factor@layers, ablate_neurons:NEURONS[:MEANS]@layers or "
    "replace:file:PATH@layers, each with /site behind the layers where it is not the default; NAME "
    "is vectors/ID or file:PATH, NEURONS neuronSets/ID[=class] or LAYER/INDEX+LAYER/INDEX";

// The parts of "OPERATION:WHAT[:LAST]@LAYERS[/SITE]".
struct Words {
  absl::string_view whole;
  absl::string_view operation;
  std::string what;
  std::optional<std::string> last;  // behind the last colon of what is not a file's prefix
  int num_layers = 0;               // listed

  absl::Status Bad(absl::string_view why) const {
    return absl::InvalidArgumentError(
        absl::StrCat("'", whole, "' ", why, "; write ", absl::string_view(kForms)));
  }
};

absl::StatusOr<v1::Tensor> ReadRows(const std::string& path, size_t num_layers) {
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  if (bytes->empty() || bytes->size() % sizeof(float) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' does not hold float32 numbers"));
  }
  const size_t elements = bytes->size() / sizeof(float);
  const bool each_layer = num_layers > 1 && elements % num_layers == 0;
  v1::Tensor tensor;
  tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
  if (each_layer) tensor.add_shape(static_cast<int64_t>(num_layers));
  tensor.add_shape(static_cast<int64_t>(each_layer ? elements / num_layers : elements));
  tensor.set_data(*bytes);
  return tensor;
}

absl::StatusOr<float> Number(const Words& words, std::optional<float> otherwise) {
  if (!words.last && otherwise) return *otherwise;
  float number = 0;
  if (!words.last || !absl::SimpleAtof(*words.last, &number) || !std::isfinite(number)) {
    return words.Bad("needs a number");
  }
  return number;
}

// Fills `vector` or `tensor` of an operation.
template <typename Operation>
absl::Status SetSource(const Words& words, Operation& operation) {
  absl::string_view name = words.what;
  if (!absl::ConsumePrefix(&name, "file:")) {
    operation.set_vector(ResourceName("vectors", name));
    return absl::OkStatus();
  }
  auto rows = ReadRows(std::string(name), static_cast<size_t>(words.num_layers));
  if (!rows.ok()) return rows.status();
  *operation.mutable_tensor() = *std::move(rows);
  return absl::OkStatus();
}

absl::Status SetDirections(const Words& words, v1::ProjectOut& project) {
  absl::string_view name = words.what;
  if (absl::ConsumePrefix(&name, "file:")) {
    auto rows = ReadRows(std::string(name), static_cast<size_t>(words.num_layers));
    if (!rows.ok()) return rows.status();
    *project.mutable_tensor() = *std::move(rows);
    return absl::OkStatus();
  }
  for (const absl::string_view each : absl::StrSplit(name, '+')) {
    project.add_vectors(ResourceName("vectors", each));
  }
  return absl::OkStatus();
}

template <typename Operation>
absl::Status SetNeurons(const Words& words, Operation& operation) {
  if (absl::StartsWith(words.what, "neuronSets/")) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(words.what, absl::MaxSplits('=', 1));
    operation.set_neuron_set(parts.first);
    if (parts.second.empty()) return absl::OkStatus();
    const auto neuron_class = ParseNeuronClass(parts.second);
    if (!neuron_class.ok()) return neuron_class.status();
    operation.set_class_(*neuron_class);
    return absl::OkStatus();
  }
  for (const absl::string_view each : absl::StrSplit(words.what, '+')) {
    const std::vector<std::string> parts = absl::StrSplit(each, '/');
    int layer = 0, index = 0;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &layer) ||
        !absl::SimpleAtoi(parts[1], &index)) {
      return words.Bad("names no neurons");
    }
    v1::NeuronId* neuron = operation.add_neurons();
    neuron->set_layer(layer);
    neuron->set_index(index);
  }
  return absl::OkStatus();
}

absl::Status SetOperation(const Words& words, v1::Intervention& intervention) {
  if (words.operation == "add") {
    const auto coefficient = Number(words, 1.0f);
    if (!coefficient.ok()) return coefficient.status();
    intervention.mutable_add()->set_coefficient(*coefficient);
    return SetSource(words, *intervention.mutable_add());
  }
  if (words.operation == "project_out") {
    const auto strength = Number(words, 1.0f);
    if (!strength.ok()) return strength.status();
    intervention.mutable_project_out()->set_strength(*strength);
    return SetDirections(words, *intervention.mutable_project_out());
  }
  if (words.operation == "clamp") {
    const auto value = Number(words, std::nullopt);
    if (!value.ok()) return value.status();
    intervention.mutable_clamp()->set_value(*value);
    return SetSource(words, *intervention.mutable_clamp());
  }
  if (words.operation == "scale_neurons") {
    const auto factor = Number(words, std::nullopt);
    if (!factor.ok()) return factor.status();
    intervention.mutable_scale_neurons()->set_factor(*factor);
    return SetNeurons(words, *intervention.mutable_scale_neurons());
  }
  if (words.operation == "ablate_neurons") {
    v1::AblateNeurons& ablate = *intervention.mutable_ablate_neurons();
    ablate.set_mode(words.last ? v1::ABLATION_MODE_MEAN : v1::ABLATION_MODE_ZERO);
    if (words.last) ablate.set_reference(ResourceName("vectors", *words.last));
    return SetNeurons(words, ablate);
  }
  if (words.operation == "replace") {
    absl::string_view path = words.what;
    if (words.last || !absl::ConsumePrefix(&path, "file:")) return words.Bad("names no file");
    auto rows = ReadRows(std::string(path), static_cast<size_t>(words.num_layers));
    if (!rows.ok()) return rows.status();
    *intervention.mutable_replace()->mutable_tensor() = *std::move(rows);
    return absl::OkStatus();
  }
  return words.Bad("is no edit");
}

// Fills site and layers from "LAYERS[/SITE]".
absl::Status SetPlace(absl::string_view place, v1::Intervention& intervention) {
  const std::vector<absl::string_view> parts = absl::StrSplit(place, absl::MaxSplits('/', 1));
  if (parts.size() == 2) {
    const auto site = ParseSite(parts[1]);
    if (!site.ok()) return site.status();
    intervention.set_site(*site);
    if (parts[0].empty()) return absl::OkStatus();
  }
  auto layers = ParseLayers(parts[0]);
  if (!layers.ok()) return layers.status();
  *intervention.mutable_layers() = *std::move(layers);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::Intervention> ParseEdit(absl::string_view text, absl::string_view scope) {
  Words words{.whole = text};
  const size_t colon = text.find(':'), at = text.rfind('@');
  if (at == absl::string_view::npos || colon == absl::string_view::npos || colon > at) {
    return words.Bad("is no edit");
  }
  words.operation = text.substr(0, colon);
  const absl::string_view middle = text.substr(colon + 1, at - colon - 1);
  const size_t prefix = absl::StartsWith(middle, "file:") ? 5 : 0;
  const size_t last = middle.rfind(':');
  const bool has_last = last != absl::string_view::npos && last >= prefix;
  words.what = std::string(middle.substr(0, has_last ? last : middle.size()));
  if (has_last) words.last = std::string(middle.substr(last + 1));
  if (words.what.size() <= prefix) return words.Bad("says not what with");

  v1::Intervention intervention;
  if (absl::Status place = SetPlace(text.substr(at + 1), intervention); !place.ok()) return place;
  words.num_layers = intervention.layers().list().layers_size();
  const auto kind = ParseTokenKind(scope);
  if (!kind.ok()) return kind.status();
  intervention.mutable_tokens()->set_kind(*kind);
  if (absl::Status operation = SetOperation(words, intervention); !operation.ok()) return operation;
  return intervention;
}

absl::StatusOr<v1::Intervention> ParseSteering(absl::string_view text, absl::string_view scope) {
  auto steering = ParseEdit(absl::StrCat("add:", text), scope);
  // Behind "file:" a path follows; any other colon ends the name.
  absl::string_view name = text;
  absl::ConsumePrefix(&name, "file:");
  if (steering.ok() && name.substr(0, name.rfind('@')).find(':') != absl::string_view::npos) {
    return steering;
  }
  if (!steering.ok() && !absl::StrContains(steering.status().message(), "add:NAME")) {
    return steering;  // of the layers, the scope or the file
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is not a steering; write NAME:coefficient@layers, such as vectors/abc:6@14"));
}

}  // namespace valuescope::command_line
