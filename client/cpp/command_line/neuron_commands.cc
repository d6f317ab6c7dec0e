#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "arguments.h"
#include "commands.h"
#include "output.h"
#include "requests.h"

namespace valuescope::command_line {
namespace {

std::string NeuronName(int layer, int index) { return absl::StrCat(layer, "/", index); }

std::string ClassName(v1::NeuronClass neuron_class) {
  return LowerWithoutPrefix(v1::NeuronClass_Name(neuron_class), "NEURON_CLASS_");
}

std::string ClassCounts(const v1::NeuronSetLayer& layer) {
  std::vector<std::string> classes;
  for (const v1::NeuronClassCount& count : layer.classes()) {
    if (count.count() > 0) {
      classes.push_back(absl::StrCat(ClassName(count.class_()), " ", count.count()));
    }
  }
  return absl::StrJoin(classes, ", ");
}

// Classes have a column where the method makes any.
void PrintNeuronSet(const v1::NeuronSet& set) {
  std::cout << set.name() << "  " << set.method() << "\n";
  const bool has_classes = absl::c_any_of(
      set.layers(), [](const v1::NeuronSetLayer& layer) { return !ClassCounts(layer).empty(); });
  std::vector<std::vector<std::string>> rows = {{"LAYER", "MEMBERS", "SCORE SUM"}};
  std::vector<std::vector<std::string>> top = {{"NEURON", "SCORE"}};
  if (has_classes) {
    rows.front().push_back("CLASSES");
    top.front().push_back("CLASS");
  }
  for (const v1::NeuronSetLayer& layer : set.layers()) {
    rows.push_back({absl::StrCat(layer.layer()), absl::StrCat(layer.num_members()),
                    absl::StrFormat("%.4g", layer.score_sum())});
    if (has_classes) rows.back().push_back(ClassCounts(layer));
  }
  for (int i = 0; i < std::min(20, set.top_size()); ++i) {
    const v1::NeuronScore& neuron = set.top(i);
    top.push_back(
        {NeuronName(neuron.layer(), neuron.index()), absl::StrFormat("%.5g", neuron.score())});
    if (has_classes) top.back().push_back(ClassName(neuron.class_()));
  }
  PrintTable(rows);
  std::cout << "\n";
  PrintTable(top);
}

void PrintSelectiveNeurons(const v1::ScoreSelectivityResponse& response,
                           const std::vector<std::string>& names) {
  std::vector<std::vector<std::string>> values = {{"", "VALUE", "MEMBERS"}};
  for (int k = 0; k < response.members_of_value_size(); ++k) {
    values.push_back({absl::StrCat(k), names[static_cast<size_t>(k)],
                      absl::StrCat(response.members_of_value(k))});
  }
  PrintTable(values);
  std::vector<std::vector<std::string>> rows = {{"NEURON", "ENTROPY", "VALUES"}};
  for (const v1::SelectiveNeuron& neuron : response.top()) {
    rows.push_back({NeuronName(neuron.layer(), neuron.index()),
                    absl::StrFormat("%.4f", neuron.entropy()),
                    absl::StrJoin(neuron.values(), ", ")});
  }
  std::cout << "\n";
  PrintTable(rows);
}

void PrintPoints(const google::protobuf::RepeatedPtrField<v1::NeuronTestPoint>& points) {
  std::vector<std::vector<std::string>> rows = {
      {"NEURONS", "TARGET", "ERROR", "FAITHFULNESS", "RANDOM", "2.5 %", "97.5 %", "P"}};
  for (const v1::NeuronTestPoint& point : points) {
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

void PrintNeuronTest(const v1::TestNeuronsResponse& response) {
  std::cout << response.num_responses() << " responses, target " << response.full();
  if (response.has_empty()) std::cout << ", without these layers' neurons " << response.empty();
  std::cout << "\n";
  if (response.rankings().empty()) PrintPoints(response.points());
  for (const v1::RankingTest& ranking : response.rankings()) {
    std::cout << "\n" << ranking.label() << "\n";
    PrintPoints(ranking.points());
  }
}

// Adds what a server is needed for. Prints what is wrong; returns an exit code.
template <typename Flags, typename Request>
int Complete(Client& client, const Flags& flags, Request& request) {
  if (request.has_target()) {
    const int code = PlaceTokens(client, request.model(), flags.target, *request.mutable_target());
    if (code != kOk) return code;
  }
  return PlaceDataSet(client, flags.data_set, request.mutable_artifact());
}

}  // namespace

int ClassifyNeurons(const Globals& globals, const ClassifyFlags& flags) {
  v1::ClassifyNeuronsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.mutable_vectors()->set_intrinsic(ResourceName("vectors", flags.intrinsic));
  request.mutable_vectors()->set_prompted(ResourceName("vectors", flags.prompted));
  request.set_top_percent(flags.top_percent);
  const auto layers = ParseLayers(flags.layers);
  if (!layers.ok()) return FailUsage(layers.status());
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
  auto request = MakeAttribution(flags);
  if (!request.ok()) return FailUsage(request.status());
  Client client = globals.Connect();
  if (const int code = Complete(client, flags, *request); code != kOk) return code;
  if (flags.job.job) {
    v1::JobSpec spec;
    *spec.mutable_attribute_neurons() = *std::move(request);
    return CreateJob(globals, client, std::move(spec), flags.display_name, flags.job);
  }
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

int ScoreSelectivity(const Globals& globals, const SelectivityFlags& flags) {
  v1::ScoreSelectivityRequest request;
  for (const std::string& name : flags.names) {
    request.add_neuron_sets(ResourceName("neuronSets", name));
  }
  if (flags.activity_percentile) request.set_activity_percentile(*flags.activity_percentile);
  if (flags.top_percent) request.set_top_percent(*flags.top_percent);
  if (flags.top_k) request.set_top_k(*flags.top_k);
  request.set_display_name(flags.display_name);
  Client client = globals.Connect();
  const auto response = client.ScoreSelectivity(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
  } else {
    std::cout << response->neuron_set().name() << "  " << response->neuron_set().method() << "\n";
    PrintSelectiveNeurons(*response, flags.names);
    PrintWarnings(response->warnings());
  }
  return kOk;
}

int TestNeurons(const Globals& globals, const TestFlags& flags) {
  auto request = MakeNeuronTest(flags);
  if (!request.ok()) return FailUsage(request.status());
  Client client = globals.Connect();
  if (const int code = Complete(client, flags, *request); code != kOk) return code;
  if (flags.job.job) {
    v1::JobSpec spec;
    *spec.mutable_test_neurons() = *std::move(request);
    return CreateJob(globals, client, std::move(spec), flags.display_name, flags.job);
  }
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

int CompareNeuronSets(const Globals& globals, const CompareSetsFlags& flags) {
  v1::CompareNeuronSetsRequest request;
  for (const std::string& text : flags.sets) {
    const auto filter = ParseNeuronSet(text);
    if (!filter.ok()) return FailUsage(filter.status());
    *request.add_sets() = *filter;
    request.mutable_sets()->rbegin()->set_top_per_layer(flags.top_per_layer);
  }
  Client client = globals.Connect();
  const auto response = client.CompareNeuronSets(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"FIRST", "SECOND", "LAYER", "BOTH", "EITHER", "JACCARD", "BOTH BY CHANCE"}};
  for (const v1::NeuronSetOverlap& one : response->overlaps()) {
    if (one.has_layer() && !flags.by_layer) continue;
    rows.push_back({flags.sets[static_cast<size_t>(one.first())],
                    flags.sets[static_cast<size_t>(one.second())],
                    one.has_layer() ? absl::StrCat(one.layer()) : "all",
                    absl::StrCat(one.intersection()), absl::StrCat(one.union_size()),
                    one.has_jaccard() ? absl::StrFormat("%.3f", one.jaccard()) : "-",
                    absl::StrFormat("%.2f", one.expected_intersection())});
  }
  PrintTable(rows);
  return kOk;
}

int TopContexts(const Globals& globals, const ContextsFlags& flags) {
  const auto neurons = ParseNeurons(flags.neurons);
  const auto tokens = ParseTokenKind(flags.tokens);
  if (!neurons.ok() || !tokens.ok())
    return FailUsage(neurons.ok() ? tokens.status() : neurons.status());
  v1::TopContextsRequest request;
  request.set_model(ResourceName("models", flags.model));
  request.mutable_neurons()->Assign(neurons->begin(), neurons->end());
  request.mutable_tokens()->set_kind(*tokens);
  if (flags.top_k) request.set_top_k(*flags.top_k);
  if (flags.window) request.set_window(*flags.window);
  Client client = globals.Connect();
  const int placed = PlaceDataSet(client, flags.data_set, request.mutable_artifact());
  if (placed != kOk) return placed;
  const auto response = client.TopContexts(request);
  if (!response.ok()) return Fail(response.status());
  if (globals.json) {
    PrintJson(*response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"NEURON", "TEXT", "POSITION", "ACTIVATION", "WINDOW"}};
  for (const v1::NeuronContexts& one : response->neurons()) {
    for (const v1::NeuronContext& context : one.contexts()) {
      rows.push_back({NeuronName(one.neuron().layer(), one.neuron().index()),
                      absl::StrCat(context.input_index()), absl::StrCat(context.position()),
                      absl::StrFormat("%.4g", context.activation()),
                      absl::Utf8SafeCEscape(context.text())});
    }
  }
  PrintTable(rows);
  return kOk;
}

}  // namespace valuescope::command_line
