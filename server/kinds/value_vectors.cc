#include "kinds/value_vectors.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/id.h"
#include "base/status_macros.h"
#include "kinds/extraction_options.h"
#include "nlohmann/json.hpp"
#include "services/study_codec.h"
#include "studies/extract_vectors.h"
#include "studies/message_json.h"
#include "studies/provenance.h"

namespace valuescope::kinds {
namespace {

constexpr int kMostVectors = 256;
constexpr int kMostVectorsAtOnce = 64;
constexpr size_t kMaxConditionBytes = 256;

using Request = v1::ExtractVectorsRequest;

std::string PlaceOf(int index) { return absl::StrCat("vectors[", index, "]"); }

absl::Status CheckValueVector(const v1::ValueVector& vector) {
  VS_RETURN_IF_ERROR(services::CheckValueName("value", vector.value()));
  std::set<std::string> conditions;
  for (int i = 0; i < vector.conditions_size(); ++i) {
    const std::string& condition = vector.conditions(i);
    const std::string field = absl::StrCat("conditions[", i, "]");
    if (condition.size() > kMaxConditionBytes) {
      return InvalidField(field, absl::StrCat("has ", condition.size(),
                                              " bytes, allowed are at most ", kMaxConditionBytes));
    }
    if (!conditions.insert(condition).second) {
      return InvalidField(field, "must be another than those before");
    }
  }
  return CheckDisplayName("display_name", vector.display_name());
}

// Whatever the order of its conditions.
std::pair<std::string, std::vector<std::string>> SortedChoice(const v1::ValueVector& vector) {
  std::vector<std::string> conditions(vector.conditions().begin(), vector.conditions().end());
  std::sort(conditions.begin(), conditions.end());
  return {vector.value(), std::move(conditions)};
}

absl::Status CheckDifferent(const Request& request) {
  std::map<std::pair<std::string, std::vector<std::string>>, int> places;
  for (int i = 0; i < request.vectors_size(); ++i) {
    const auto [place, is_new] = places.emplace(SortedChoice(request.vectors(i)), i);
    if (is_new) continue;
    return InvalidField(PlaceOf(i), absl::StrCat("asks for the same as ", PlaceOf(place->second)));
  }
  return absl::OkStatus();
}

absl::Status CheckCount(size_t count, size_t most, absl::string_view of_what) {
  if (count <= most) return absl::OkStatus();
  return InvalidField("vectors",
                      absl::StrCat("are of ", count, " ", of_what, ", allowed are at most ", most));
}

// --- Against the responses -----------------------------------------------------------------------

studies::SelectionRule RuleOf(const v1::ValueVector& vector, const services::AskedLabels& asked) {
  studies::SelectionRule rule{.value = asked.values.at(vector.value())};
  for (const std::string& condition : vector.conditions()) {
    rule.conditions |= uint32_t{1} << asked.conditions.at(condition);
  }
  return rule;
}

// What any response has, empty ones included.
struct Seen {
  uint64_t values = 0;
  uint32_t conditions = 0;

  void Add(const studies::ValueLabels& labels) {
    values |= labels.known;
    if (labels.condition >= 0) conditions |= uint32_t{1} << labels.condition;
  }
};

Seen SeenIn(const studies::ResponseSet& set) {
  Seen seen;
  for (const studies::LabelledResponse& response : set.responses) seen.Add(response.labels);
  for (const studies::ValueLabels& labels : set.dropped) seen.Add(labels);
  return seen;
}

absl::Status CheckSeen(const v1::ValueVector& vector, const services::AskedLabels& asked,
                       const Seen& seen) {
  if (((seen.values >> asked.values.at(vector.value())) & 1) == 0) {
    return InvalidField("value", "is a value that no response has a label of", "UNKNOWN_VALUE");
  }
  for (int i = 0; i < vector.conditions_size(); ++i) {
    if (((seen.conditions >> asked.conditions.at(vector.conditions(i))) & 1) != 0) continue;
    return InvalidField(absl::StrCat("conditions[", i, "]"),
                        "is a condition that no response is under", "UNKNOWN_CONDITION");
  }
  return absl::OkStatus();
}

std::string DisplayNameOf(const v1::ValueVector& vector, const std::string& of_request) {
  if (!vector.display_name().empty()) return vector.display_name();
  if (vector.value().empty()) return of_request;
  if (vector.conditions().empty()) return vector.value();
  const std::string name =
      absl::StrCat(vector.value(), " (", absl::StrJoin(vector.conditions(), ", "), ")");
  return CheckDisplayName("display_name", name).ok() ? name : vector.value();
}

// What the request chose, of this vector alone.
std::string OptionsOf(const v1::ValueVector& vector, const std::string& of_all) {
  Request one;
  *one.add_vectors() = vector;
  one.mutable_vectors(0)->clear_display_name();
  auto chosen = nlohmann::ordered_json::parse(of_all);
  chosen["vectors"] = nlohmann::ordered_json::parse(studies::RecordOfRequest(one, {}))["vectors"];
  return chosen.dump();
}

// Sets what the vector records and, where it cannot be made, why.
void Describe(const Request& request, const services::UsedResources& used,
              const v1::Provenance& of_all, const studies::ResponseSet& set,
              SavedValueVector& vector) {
  const studies::ResponseSelection selection = SelectionOf(&vector, set);
  v1::Provenance& provenance = *vector.mutable_provenance();
  const int64_t num_dropped = provenance.num_dropped();
  provenance = of_all;
  provenance.set_num_expressing(selection.num_expressing);
  provenance.set_num_non_expressing(selection.num_non_expressing);
  provenance.set_num_dropped(num_dropped);
  services::UsedResources inputs = used;
  inputs[studies::kResponsesInput] = studies::DigestOf(set, selection);
  *provenance.mutable_inputs() = services::InputsOf(inputs, request.artifact());
  provenance.set_options(OptionsOf(vector.of(), of_all.options()));
  absl::Status makes =
      studies::CheckBothLabels("responses", selection.num_expressing, selection.num_non_expressing);
  if (makes.ok()) makes = studies::CheckMethod(MethodOf(request), set, selection);
  if (makes.ok()) return;
  vector.set_absence(DetailsOf(makes).reason);
  vector.set_lack(
      absl::StrCat("the vector is not made: its responses ", DetailsOf(makes).description));
}

absl::Status CheckAnyIsMade(const google::protobuf::RepeatedPtrField<SavedValueVector>& vectors) {
  for (const SavedValueVector& vector : vectors) {
    if (vector.absence().empty()) return absl::OkStatus();
  }
  return InvalidField("vectors",
                      absl::StrCat("has none that can be made; of vectors[0], ", vectors[0].lack()),
                      vectors[0].absence());
}

}  // namespace

absl::Status CheckValueVectors(const Request& request) {
  if (request.vectors().empty()) return absl::OkStatus();
  if (request.has_generated()) {
    return InvalidField("vectors",
                        "must be unset with `generated`: generate the responses with a job "
                        "generate_responses, label them with a job judge_responses for each value, "
                        "and give the artifact that the last one leaves");
  }
  if (request.vectors_size() > kMostVectors) {
    return InvalidField("vectors", absl::StrCat("has ", request.vectors_size(),
                                                " vectors, allowed are at most ", kMostVectors));
  }
  for (int i = 0; i < request.vectors_size(); ++i) {
    VS_RETURN_IF_ERROR(InField(PlaceOf(i), CheckValueVector(request.vectors(i))));
  }
  const services::AskedLabels asked = AskedLabelsOf(request);
  VS_RETURN_IF_ERROR(CheckCount(asked.values.size(), studies::kMostValues, "values"));
  VS_RETURN_IF_ERROR(CheckCount(asked.conditions.size(), studies::kMostConditions, "conditions"));
  return CheckDifferent(request);
}

absl::Status CheckVectorsOfCall(const Request& request) {
  if (request.vectors_size() <= kMostVectorsAtOnce) return absl::OkStatus();
  return NeverFits("USE_A_JOB",
                   absl::StrCat("`vectors` has more than one call makes, which is ",
                                kMostVectorsAtOnce, "; create a job with the same request"));
}

services::AskedLabels AskedLabelsOf(const Request& request) {
  services::AskedLabels asked;
  for (const v1::ValueVector& vector : request.vectors()) {
    asked.values.emplace(vector.value(), static_cast<int>(asked.values.size()));
    for (const std::string& condition : vector.conditions()) {
      asked.conditions.emplace(condition, static_cast<int>(asked.conditions.size()));
    }
  }
  return asked;
}

std::vector<const SavedValueVector*> MadeVectors(const SavedExtraction& extraction) {
  if (extraction.vectors().empty()) return {nullptr};
  std::vector<const SavedValueVector*> made;
  for (const SavedValueVector& vector : extraction.vectors()) {
    if (vector.absence().empty()) made.push_back(&vector);
  }
  return made;
}

studies::ResponseSelection SelectionOf(const SavedValueVector* vector,
                                       const studies::ResponseSet& set) {
  if (vector == nullptr) return studies::AllOf(set);
  return studies::Selected(set, {.value = vector->value(), .conditions = vector->conditions()});
}

int64_t BytesOfPlaces(const SavedExtraction& extraction) {
  int64_t places = 0;
  for (const SavedValueVector& vector : extraction.vectors()) {
    places += vector.provenance().num_expressing() + vector.provenance().num_non_expressing();
  }
  return places * static_cast<int64_t>(sizeof(studies::SummedMeans::Place));
}

absl::Status ResolveValueVectors(const Request& request, const services::AskedLabels& asked,
                                 const services::UsedResources& used,
                                 const rpc::CallContext& context, ResponseInputs& inputs) {
  SavedWork& record = inputs.record;
  const Seen seen = SeenIn(inputs.responses);
  std::vector<studies::SelectionRule> rules;
  auto& vectors = *record.mutable_extract_vectors()->mutable_vectors();
  for (int i = 0; i < request.vectors_size(); ++i) {
    const v1::ValueVector& chosen = request.vectors(i);
    VS_RETURN_IF_ERROR(InField(PlaceOf(i), CheckSeen(chosen, asked, seen)));
    const studies::SelectionRule& rule = rules.emplace_back(RuleOf(chosen, asked));
    const studies::LeftOut left_out = studies::LeftOutOf(inputs.responses, rule);
    SavedValueVector& vector = *vectors.Add();
    *vector.mutable_of() = chosen;
    vector.mutable_of()->set_display_name(DisplayNameOf(chosen, record.display_name()));
    vector.set_value(rule.value);
    vector.set_conditions(rule.conditions);
    vector.set_num_unlabelled(left_out.num_unlabelled);
    vector.mutable_provenance()->set_num_dropped(left_out.num_dropped);
  }
  studies::KeepSelected(rules, inputs.responses);
  record.set_num_responses(static_cast<int64_t>(inputs.responses.responses.size()));
  for (SavedValueVector& vector : vectors) {
    VS_RETURN_IF_ERROR(context.Why());
    Describe(request, used, record.provenance(), inputs.responses, vector);
  }
  return CheckAnyIsMade(vectors);
}

}  // namespace valuescope::kinds
