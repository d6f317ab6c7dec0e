// The small languages of the command line: layers ("14", "10-14", "3,5,7-9", "all"), steering
// ("NAME:coefficient@layers") and other edits, sites, scopes and reductions by their names.
// Everything a person mistypes comes back as a sentence that shows what is allowed.
#ifndef VALUESCOPE_COMMAND_LINE_ARGUMENTS_H_
#define VALUESCOPE_COMMAND_LINE_ARGUMENTS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/models.pb.h"
#include "valuescope/v1/neurons.pb.h"
#include "valuescope/v1/vectors.pb.h"

namespace valuescope::command_line {

// "14", "10-14", "3,5,7-9" or "all".
absl::StatusOr<v1::Layers> ParseLayers(absl::string_view text);

// The same at one site. Sites that exist once a model, such as logits, have no layers: "all" and ""
// are none there, and numbers are an error.
absl::StatusOr<std::optional<v1::Layers>> ParseLayersAt(v1::Site site, absl::string_view text);

// A change of activations as typed.
struct ParsedEdit {
  v1::Intervention intervention;
  std::string file;  // that its rows were read from; empty where they are named
};

// One change of activations, "OPERATION:WHAT[:NUMBER]@LAYERS[/SITE]":
//
//   add:vectors/ID:6@14                              coefficient, default 1
//   project_out:vectors/A+vectors/B:0.5@all          strength, default 1
//   clamp:file:PATH.f32:2.5@10-14/residual_mid       value
//   scale_neurons:3/17+3/20:0.5@all                  neurons as LAYER/INDEX; factor
//   ablate_neurons:neuronSets/ID=shared@all          a set, or one class of it; zeroes, or with
//   ablate_neurons:2/1:vectors/MEANS@all/attention_heads   :NAME puts the rows of that vector there
//   replace:file:PATH.f32@14
//
// A file holds little-endian float32 numbers; ShapeRows makes rows of them. Sites without layers go
// "@all/logits" or "@/logits". `scope` is the name of a token kind, such as "from_last_prompt".
absl::StatusOr<ParsedEdit> ParseEdit(absl::string_view text, absl::string_view scope);

// "vectors/ID:6@14", short for "add:vectors/ID:6@14"; here the coefficient is required.
absl::StatusOr<ParsedEdit> ParseSteering(absl::string_view text, absl::string_view scope);

// Makes the numbers of a file one row for all layers or one row a layer, whichever its site's width
// says they are.
absl::Status ShapeRows(const v1::Model& model, ParsedEdit& edit);

// Neurons one by one, "3/17+3/20" (LAYER/INDEX), or a set, "neuronSets/ID", or one class of it,
// "neuronSets/ID=shared".
struct ParsedNeurons {
  std::vector<v1::NeuronId> neurons;
  std::string neuron_set;
  v1::NeuronClass neuron_class = v1::NEURON_CLASS_UNSPECIFIED;

  // Into the fields of these names.
  template <typename Message>
  void PutInto(Message& message) const {
    message.mutable_neurons()->Assign(neurons.begin(), neurons.end());
    message.set_neuron_set(neuron_set);
    message.set_class_(neuron_class);
  }
};
absl::StatusOr<ParsedNeurons> ParseNeuronsOrSet(absl::string_view text);

// Lower-case names without their prefix: "residual_post", "from_last_prompt", "mean".
absl::StatusOr<v1::Site> ParseSite(absl::string_view name);
std::string SiteName(v1::Site site);
absl::StatusOr<v1::TokenKind> ParseTokenKind(absl::string_view name);
absl::StatusOr<v1::Reduction> ParseReduction(absl::string_view name);
absl::StatusOr<v1::NeuronClass> ParseNeuronClass(absl::string_view name);
absl::StatusOr<v1::ExtractionMethod> ParseExtractionMethod(absl::string_view name);
absl::StatusOr<v1::Pooling> ParsePooling(absl::string_view name);
absl::StatusOr<v1::NeuronTest> ParseNeuronTest(absl::string_view name);
absl::StatusOr<v1::AblationMode> ParseAblationMode(absl::string_view name);
absl::StatusOr<v1::OptionOrder> ParseOptionOrder(absl::string_view name);
absl::StatusOr<v1::QuestionnaireKey> ParseQuestionnaireKey(absl::string_view name);
absl::StatusOr<v1::ChoiceReading> ParseChoiceReading(absl::string_view name);

// "3/17+3/20": neurons as LAYER/INDEX.
absl::StatusOr<std::vector<v1::NeuronId>> ParseNeurons(absl::string_view text);
// "neuronSets/ID", or one class of it, "neuronSets/ID=shared"; the collection may be left out.
absl::StatusOr<v1::NeuronSetFilter> ParseNeuronSet(absl::string_view text);

// The names of all sites, and which have no layers, for a command's help.
std::string SitesHelp();

// "x" or "models/x" -> "models/x".
std::string ResourceName(absl::string_view collection, absl::string_view name);

// A file's bytes; "-" is standard input.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace valuescope::command_line

#endif  // VALUESCOPE_COMMAND_LINE_ARGUMENTS_H_
