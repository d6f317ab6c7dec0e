#include "arguments.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <set>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "valuescope/client.h"

namespace valuescope::command_line {
namespace {

constexpr int kMostLayers = 4096;
constexpr char kSitePrefix[] = "SITE_";

absl::Status BadLayers(absl::string_view text) {
  return absl::InvalidArgumentError(absl::StrCat(
      "'", text, "' is not a choice of layers; write 14, 10-14, 3,5,7-9 or all (0-based blocks)"));
}

absl::StatusOr<std::pair<int, int>> ParseRange(absl::string_view part, absl::string_view whole) {
  const std::vector<std::string> ends = absl::StrSplit(part, '-');
  int first = 0, last = 0;
  if (ends.empty() || ends.size() > 2 || !absl::SimpleAtoi(ends.front(), &first) ||
      !absl::SimpleAtoi(ends.back(), &last) || first < 0 || last < first || last >= kMostLayers) {
    return BadLayers(whole);
  }
  return std::make_pair(first, last);
}

bool HasLayers(v1::Site site) {
  return site != v1::SITE_EMBEDDING && site != v1::SITE_FINAL_NORM && site != v1::SITE_LOGITS;
}

// Looks a lower-case name up among an enum's values, whose names carry `prefix`.
template <typename Enum, typename Parse>
absl::StatusOr<Enum> ParseEnum(absl::string_view name, absl::string_view prefix,
                               absl::string_view what, Parse parse,
                               const google::protobuf::EnumDescriptor* descriptor) {
  Enum value;
  if (parse(absl::StrCat(prefix, absl::AsciiStrToUpper(name)), &value) && value != 0) return value;
  std::vector<std::string> allowed;
  for (int i = 0; i < descriptor->value_count(); ++i) {
    const auto* entry = descriptor->value(i);
    if (entry->number() == 0) continue;
    allowed.push_back(absl::AsciiStrToLower(entry->name().substr(prefix.size())));
  }
  return absl::InvalidArgumentError(absl::StrCat("'", name, "' is not a ", what, "; choose one of ",
                                                 absl::StrJoin(allowed, ", ")));
}

}  // namespace

absl::StatusOr<v1::Layers> ParseLayers(absl::string_view text) {
  v1::Layers layers;
  if (text == "all") {
    layers.set_all(true);
    return layers;
  }
  std::set<int> chosen;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const auto range = ParseRange(part, text);
    if (!range.ok()) return range.status();
    for (int layer = range->first; layer <= range->second; ++layer) chosen.insert(layer);
  }
  layers.mutable_list()->mutable_layers()->Add(chosen.begin(), chosen.end());
  return layers;
}

absl::StatusOr<std::optional<v1::Layers>> ParseLayersAt(v1::Site site, absl::string_view text) {
  if (HasLayers(site)) return ParseLayers(text);
  if (text.empty() || text == "all") return std::nullopt;
  return absl::InvalidArgumentError(
      absl::StrCat("'", text, "' chooses layers, but ", SiteName(site), " has none; write all"));
}

absl::StatusOr<v1::Site> ParseSite(absl::string_view name) {
  return ParseEnum<v1::Site>(name, kSitePrefix, "site", v1::Site_Parse, v1::Site_descriptor());
}

std::string SiteName(v1::Site site) {
  return absl::AsciiStrToLower(absl::StripPrefix(v1::Site_Name(site), kSitePrefix));
}

std::string SitesHelp() {
  std::vector<std::string> with_layers, without;
  for (int i = 0; i < v1::Site_descriptor()->value_count(); ++i) {
    const auto site = static_cast<v1::Site>(v1::Site_descriptor()->value(i)->number());
    if (site == v1::SITE_UNSPECIFIED) continue;
    (HasLayers(site) ? with_layers : without).push_back(SiteName(site));
  }
  return absl::StrCat(
      "sites: ", absl::StrJoin(with_layers, ", "),
      "\nsites without layers, where all stands for none: ", absl::StrJoin(without, ", "));
}

absl::StatusOr<v1::TokenKind> ParseTokenKind(absl::string_view name) {
  return ParseEnum<v1::TokenKind>(name, "TOKEN_KIND_", "scope", v1::TokenKind_Parse,
                                  v1::TokenKind_descriptor());
}

absl::StatusOr<v1::Reduction> ParseReduction(absl::string_view name) {
  return ParseEnum<v1::Reduction>(name, "REDUCTION_", "reduction", v1::Reduction_Parse,
                                  v1::Reduction_descriptor());
}

absl::StatusOr<v1::NeuronClass> ParseNeuronClass(absl::string_view name) {
  return ParseEnum<v1::NeuronClass>(name, "NEURON_CLASS_", "class", v1::NeuronClass_Parse,
                                    v1::NeuronClass_descriptor());
}

absl::StatusOr<v1::ExtractionMethod> ParseExtractionMethod(absl::string_view name) {
  return ParseEnum<v1::ExtractionMethod>(name, "EXTRACTION_METHOD_", "method",
                                         v1::ExtractionMethod_Parse,
                                         v1::ExtractionMethod_descriptor());
}

absl::StatusOr<v1::Pooling> ParsePooling(absl::string_view name) {
  return ParseEnum<v1::Pooling>(name, "POOLING_", "pooling", v1::Pooling_Parse,
                                v1::Pooling_descriptor());
}

absl::StatusOr<v1::NeuronTest> ParseNeuronTest(absl::string_view name) {
  return ParseEnum<v1::NeuronTest>(name, "NEURON_TEST_", "test", v1::NeuronTest_Parse,
                                   v1::NeuronTest_descriptor());
}

absl::StatusOr<v1::AblationMode> ParseAblationMode(absl::string_view name) {
  return ParseEnum<v1::AblationMode>(name, "ABLATION_MODE_", "mode", v1::AblationMode_Parse,
                                     v1::AblationMode_descriptor());
}

absl::StatusOr<v1::OptionOrder> ParseOptionOrder(absl::string_view name) {
  return ParseEnum<v1::OptionOrder>(name, "OPTION_ORDER_", "order", v1::OptionOrder_Parse,
                                    v1::OptionOrder_descriptor());
}

absl::StatusOr<v1::QuestionnaireKey> ParseQuestionnaireKey(absl::string_view name) {
  return ParseEnum<v1::QuestionnaireKey>(name, "QUESTIONNAIRE_KEY_", "key",
                                         v1::QuestionnaireKey_Parse,
                                         v1::QuestionnaireKey_descriptor());
}

absl::StatusOr<v1::ChoiceReading> ParseChoiceReading(absl::string_view name) {
  return ParseEnum<v1::ChoiceReading>(name, "CHOICE_READING_", "reading", v1::ChoiceReading_Parse,
                                      v1::ChoiceReading_descriptor());
}

absl::StatusOr<std::vector<v1::NeuronId>> ParseNeurons(absl::string_view text) {
  std::vector<v1::NeuronId> neurons;
  for (const absl::string_view each : absl::StrSplit(text, '+')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(each, '/');
    int layer = 0, index = 0;
    if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &layer) ||
        !absl::SimpleAtoi(parts[1], &index)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", text, "' names no neurons; write LAYER/INDEX+LAYER/INDEX"));
    }
    v1::NeuronId& neuron = neurons.emplace_back();
    neuron.set_layer(layer);
    neuron.set_index(index);
  }
  return neurons;
}

absl::StatusOr<v1::NeuronSetFilter> ParseNeuronSet(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits('=', 1));
  v1::NeuronSetFilter filter;
  filter.set_neuron_set(ResourceName("neuronSets", parts.first));
  if (parts.second.empty()) return filter;
  const auto neuron_class = ParseNeuronClass(parts.second);
  if (!neuron_class.ok()) return neuron_class.status();
  filter.set_class_(*neuron_class);
  return filter;
}

absl::StatusOr<ParsedNeurons> ParseNeuronsOrSet(absl::string_view text) {
  ParsedNeurons parsed;
  if (absl::StartsWith(text, "neuronSets/")) {
    const auto filter = ParseNeuronSet(text);
    if (!filter.ok()) return filter.status();
    parsed.neuron_set = filter->neuron_set();
    parsed.neuron_class = filter->class_();
    return parsed;
  }
  auto neurons = ParseNeurons(text);
  if (!neurons.ok()) return neurons.status();
  parsed.neurons = *std::move(neurons);
  return parsed;
}

std::string ResourceName(absl::string_view collection, absl::string_view name) {
  return absl::StartsWith(name, absl::StrCat(collection, "/"))
             ? std::string(name)
             : absl::StrCat(collection, "/", name);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ostringstream bytes;
  if (path == "-") {
    bytes << std::cin.rdbuf();
    return bytes.str();
  }
  std::error_code error;
  if (std::filesystem::is_character_file(path, error)) {  // such as /dev/zero, which never ends
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' is a device; - reads standard input"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read '", path, "'"));
  bytes << file.rdbuf();
  return bytes.str();
}

}  // namespace valuescope::command_line
