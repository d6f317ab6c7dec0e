#include <algorithm>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

void PrintNeuronSet(const v1::NeuronSet& set) {
  std::cout << set.name() << "  " << set.method() << "\n";
  std::vector<std::vector<std::string>> rows = {{"LAYER", "MEMBERS", "CLASSES", "SCORE SUM"}};
  for (const v1::NeuronSetLayer& layer : set.layers()) {
    std::vector<std::string> classes;
    for (const v1::NeuronClassCount& count : layer.classes()) {
      if (count.count() == 0) continue;
      classes.push_back(
          absl::StrCat(LowerWithoutPrefix(v1::NeuronClass_Name(count.class_()), "NEURON_CLASS_"),
                       " ", count.count()));
    }
    rows.push_back({absl::StrCat(layer.layer()), absl::StrCat(layer.num_members()),
                    absl::StrJoin(classes, ", "), absl::StrFormat("%.4g", layer.score_sum())});
  }
  PrintTable(rows);
  std::vector<std::vector<std::string>> top = {{"NEURON", "SCORE", "CLASS"}};
  for (int i = 0; i < std::min(20, set.top_size()); ++i) {
    const v1::NeuronScore& neuron = set.top(i);
    top.push_back({absl::StrCat(neuron.layer(), ".", neuron.index()),
                   absl::StrFormat("%.5g", neuron.score()),
                   LowerWithoutPrefix(v1::NeuronClass_Name(neuron.class_()), "NEURON_CLASS_")});
  }
  std::cout << "\n";
  PrintTable(top);
}

std::string NumberOrNothing(bool is_set, double number) {
  return is_set ? absl::StrFormat("%.4g", number) : "";
}

void PrintNeuronTest(const v1::TestNeuronsResponse& response) {
  std::cout << response.num_responses() << " responses, target " << response.full();
  if (response.has_empty()) std::cout << ", without these layers' neurons " << response.empty();
  std::cout << "\n";
  std::vector<std::vector<std::string>> rows = {
      {"NEURONS", "TARGET", "ERROR", "FAITHFULNESS", "RANDOM", "2.5 %", "97.5 %", "P"}};
  for (const v1::NeuronTestPoint& point : response.points()) {
    rows.push_back({absl::StrCat(point.size()), absl::StrFormat("%.4g", point.target()),
                    NumberOrNothing(point.has_standard_error(), point.standard_error()),
                    NumberOrNothing(point.has_faithfulness(), point.faithfulness()),
                    NumberOrNothing(point.has_random_mean(), point.random_mean()),
                    NumberOrNothing(point.has_random_lower(), point.random_lower()),
                    NumberOrNothing(point.has_random_upper(), point.random_upper()),
                    NumberOrNothing(point.has_p_value(), point.p_value())});
  }
  PrintTable(rows);
}

}  // namespace

int ClassifyNeurons(const Globals& globals, const ClassifyFlags& flags) {
  v1::ClassifyNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.mutable_vectors()->set_intrinsic(ResourceName("vectors", flags.intrinsic));
  request.mutable_vectors()->set_prompted(ResourceName("vectors", flags.prompted));
  request.set_top_percent(flags.top_percent);
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) {
    Fail(layers.status());
    return kUsageError;
  }
  *request.mutable_layers() = *layers;
  Client client = globals.Connect();
  const auto response = client.ClassifyNeurons(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintNeuronSet(response->neuron_set());
    PrintWarnings(response->warnings());
  }
  return kOk;
}

int AttributeNeurons(const Globals& globals, const AttributeFlags& flags) {
  Client client = globals.Connect();
  const auto request = MakeAttribution(client, flags);
  if (!request.ok()) return Fail(request.status());
  const auto response = client.AttributeNeurons(*request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintNeuronSet(response->neuron_set());
    PrintWarnings(response->warnings());
  }
  return kOk;
}

int TestNeurons(const Globals& globals, const TestFlags& flags) {
  Client client = globals.Connect();
  const auto request = MakeNeuronTest(client, flags);
  if (!request.ok()) return Fail(request.status());
  const auto response = client.TestNeurons(*request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    PrintNeuronTest(*response);
    PrintWarnings(response->warnings());
  }
  return kOk;
}

}  // namespace valuescope::command_line
