// Changes of activations as words of the command line; see ParseEdit in arguments.h.
#include <algorithm>
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
    "replace:file:PATH@layers, each with /site behind the layers where it is not the default (a "
    "site without layers as @all/logits); NAME is vectors/ID or file:PATH, NEURONS "
    "neuronSets/ID[=class] or LAYER/INDEX+LAYER/INDEX";

// The parts of "OPERATION:WHAT[:LAST]@LAYERS[/SITE]".
struct Words {
  absl::string_view whole;
  absl::string_view operation;
  std::string what;
  std::optional<std::string> last;  // behind the last colon of what is not a file's prefix

  absl::Status Bad(absl::string_view why) const {
    return absl::InvalidArgumentError(
        absl::StrCat("'", whole, "' ", why, "; write ", absl::string_view(kForms)));
  }
};

// All numbers of a file as one row; how many rows they are is known only beside a model.
absl::StatusOr<v1::Tensor> ReadRows(const std::string& path) {
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  if (bytes->empty() || bytes->size() % sizeof(float) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' does not hold float32 numbers"));
  }
  v1::Tensor tensor;
  tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
  tensor.add_shape(static_cast<int64_t>(bytes->size() / sizeof(float)));
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
  auto rows = ReadRows(std::string(name));
  if (!rows.ok()) return rows.status();
  *operation.mutable_tensor() = *std::move(rows);
  return absl::OkStatus();
}

absl::Status SetDirections(const Words& words, v1::ProjectOut& project) {
  absl::string_view name = words.what;
  if (absl::ConsumePrefix(&name, "file:")) {
    auto rows = ReadRows(std::string(name));
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
  const auto neurons = ParseNeuronsOrSet(words.what);
  if (!neurons.ok()) return words.Bad(absl::StrCat("is none: ", neurons.status().message()));
  neurons->PutInto(operation);
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
    auto rows = ReadRows(std::string(path));
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
  auto layers = ParseLayersAt(intervention.site(), parts[0]);
  if (!layers.ok()) return layers.status();
  if (*layers) *intervention.mutable_layers() = **std::move(layers);
  return absl::OkStatus();
}

v1::Tensor& RowsOf(v1::Intervention& intervention) {
  if (intervention.has_add()) return *intervention.mutable_add()->mutable_tensor();
  if (intervention.has_clamp()) return *intervention.mutable_clamp()->mutable_tensor();
  if (intervention.has_project_out()) return *intervention.mutable_project_out()->mutable_tensor();
  return *intervention.mutable_replace()->mutable_tensor();
}

// How many rows a tensor of one row a layer has.
int64_t NumRows(const v1::Layers& layers, const v1::Model& model) {
  return layers.all() ? model.num_layers() : std::max(1, layers.list().layers_size());
}

absl::Status BadSize(const ParsedEdit& edit, int64_t elements, int64_t width, int64_t num_rows) {
  std::string allowed = absl::StrCat(width, " (one row)");
  if (num_rows > 1) {
    absl::StrAppend(&allowed, " or ", num_rows * width, " (one row for each of ", num_rows,
                    " layers)");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("'", edit.file, "' holds ", elements, " numbers; here it needs ", allowed));
}

}  // namespace

absl::StatusOr<ParsedEdit> ParseEdit(absl::string_view text, absl::string_view scope) {
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

  ParsedEdit edit;
  v1::Intervention& intervention = edit.intervention;
  if (absl::Status place = SetPlace(text.substr(at + 1), intervention); !place.ok()) return place;
  const auto kind = ParseTokenKind(scope);
  if (!kind.ok()) return kind.status();
  intervention.mutable_tokens()->set_kind(*kind);
  if (absl::Status operation = SetOperation(words, intervention); !operation.ok()) return operation;
  if (prefix > 0) edit.file = words.what.substr(prefix);
  return edit;
}

absl::Status ShapeRows(const v1::Model& model, ParsedEdit& edit) {
  const v1::Site site = edit.intervention.site() == v1::SITE_UNSPECIFIED ? v1::SITE_RESIDUAL_POST
                                                                         : edit.intervention.site();
  const auto found =
      std::find_if(model.sites().begin(), model.sites().end(),
                   [site](const v1::SiteShape& shape) { return shape.site() == site; });
  // A model that is not loaded tells no sites; the server refuses it and says what state it is in.
  if (found == model.sites().end()) return absl::OkStatus();
  v1::Tensor& rows = RowsOf(edit.intervention);
  const int64_t elements = rows.shape(0), width = found->width();
  const int64_t num_rows = NumRows(edit.intervention.layers(), model);
  if (elements == width) return absl::OkStatus();
  if (elements != num_rows * width) return BadSize(edit, elements, width, num_rows);
  rows.set_shape(0, num_rows);
  rows.add_shape(width);
  return absl::OkStatus();
}

absl::StatusOr<ParsedEdit> ParseSteering(absl::string_view text, absl::string_view scope) {
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
