#include "kinds/sweep_evaluations.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/evaluation_work.h"
#include "kinds/sweep_measures.h"
#include "studies/measure_texts.h"
#include "studies/text_checks.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::SteeringSweepSpec;
using Evaluation = v1::SweepEvaluation;

constexpr int kMostEvaluations = 16, kMostBounds = 64;
constexpr size_t kMostNameBytes = 64;
// Of a SweepPoint in memory, and of each of its measures.
constexpr int64_t kBytesOfPoint = 1024, kBytesOfMeasure = 192;
constexpr char kOfSweep[] = "must be unset here: the sweep has it";

std::string FieldOf(int evaluation) { return absl::StrCat("evaluations[", evaluation, "]"); }

// Of a request of a kind, the field that holds it.
std::string RequestFieldOf(int evaluation, const Evaluation& of) {
  const std::string field = FieldOf(evaluation);
  switch (of.evaluation_case()) {
    case Evaluation::kResponses:
      return absl::StrCat(field, ".responses.generation");
    case Evaluation::kQuestionnaire:
      return absl::StrCat(field, ".questionnaire");
    case Evaluation::kChoices:
      return absl::StrCat(field, ".choices");
    case Evaluation::kTaggedResponses:
      return absl::StrCat(field, ".tagged_responses");
    case Evaluation::EVALUATION_NOT_SET:
      break;
  }
  return field;
}

// --- Before anything is read ---------------------------------------------------------------------

template <typename Request>
absl::Status CheckUnset(const std::string& field, const Request& request) {
  if (!request.model().empty()) return InvalidField(absl::StrCat(field, ".model"), kOfSweep);
  if (!request.conditions().empty()) {
    return InvalidField(absl::StrCat(field, ".conditions"), kOfSweep);
  }
  if constexpr (requires { request.display_name(); }) {
    if (!request.display_name().empty()) {
      return InvalidField(absl::StrCat(field, ".display_name"), kOfSweep);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMeasuresUnset(const std::string& field, const v1::MeasureTextsRequest& request) {
  if (!request.model().empty()) return InvalidField(absl::StrCat(field, ".model"), kOfSweep);
  if (!request.responses().empty()) {
    return InvalidField(absl::StrCat(field, ".responses"),
                        "must be unset here: they are generated");
  }
  if (!request.artifact().empty()) {
    return InvalidField(absl::StrCat(field, ".artifact"), "must be unset here: they are generated");
  }
  if (request.display_name().empty()) return absl::OkStatus();
  return InvalidField(absl::StrCat(field, ".display_name"), kOfSweep);
}

absl::Status CheckRequest(int number, const Evaluation& evaluation) {
  const std::string field = RequestFieldOf(number, evaluation);
  switch (evaluation.evaluation_case()) {
    case Evaluation::kResponses:
      VS_RETURN_IF_ERROR(CheckUnset(field, evaluation.responses().generation()));
      return CheckMeasuresUnset(absl::StrCat(FieldOf(number), ".responses.measures"),
                                evaluation.responses().measures());
    case Evaluation::kQuestionnaire:
      return CheckUnset(field, evaluation.questionnaire());
    case Evaluation::kChoices:
      return CheckUnset(field, evaluation.choices());
    case Evaluation::kTaggedResponses:
      return CheckUnset(field, evaluation.tagged_responses());
    case Evaluation::EVALUATION_NOT_SET:
      break;
  }
  return InvalidField(field, "must have responses, questionnaire, choices or tagged_responses");
}

absl::Status CheckName(const std::string& field, const std::string& name,
                       std::set<std::string>& names) {
  const bool white = std::any_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isspace(static_cast<uint8_t>(c));
  });
  if (name.empty() || name.size() > kMostNameBytes || white) {
    return InvalidField(
        field, absl::StrCat("must have 1 .. ", kMostNameBytes, " bytes without white space"));
  }
  if (names.insert(name).second) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("is `", name, "`, as that of another evaluation is"));
}

absl::Status CheckBound(const std::string& field, const v1::SweepBound& bound) {
  struct Number {
    const char* name;
    bool given;
    double value;
    bool is_ratio;
  };
  const Number numbers[] = {
      {"at_least", bound.has_at_least(), bound.at_least(), false},
      {"at_most", bound.has_at_most(), bound.at_most(), false},
      {"ratio_at_least", bound.has_ratio_at_least(), bound.ratio_at_least(), true},
      {"ratio_at_most", bound.has_ratio_at_most(), bound.ratio_at_most(), true},
      {"drop_at_most", bound.has_drop_at_most(), bound.drop_at_most(), false},
      {"rise_at_most", bound.has_rise_at_most(), bound.rise_at_most(), false}};
  bool any = false;
  for (const Number& number : numbers) {
    any |= number.given;
    if (std::isfinite(number.value) && !(number.is_ratio && number.value < 0)) continue;
    return InvalidField(absl::StrCat(field, ".", number.name),
                        number.is_ratio ? "must be finite and at least 0" : "must be finite",
                        "OUT_OF_RANGE");
  }
  return any ? absl::OkStatus() : InvalidField(field, "must have at least one bound");
}

// --- Measures ------------------------------------------------------------------------------------

using NamesByEvaluation = std::map<std::string, std::vector<std::string>>;

// Of a kind that scores values: those that its items have.
template <typename Result>
Result ResultWithValues(const SavedItems& items) {
  Result result;
  std::set<std::string> seen;
  const auto add = [&](const std::string& value) {
    if (!value.empty() && seen.insert(value).second) result.add_values()->set_value(value);
  };
  for (const SavedItem& item : items.items()) {
    add(item.questionnaire_item().value());
    for (const v1::ValueWeight& weight : item.tagged_response().weights()) add(weight.value());
  }
  return result;
}

// Those that an evaluation has at every point.
std::vector<std::string> NamesOf(const Evaluation& evaluation, const jobs::Work& draft,
                                 const v1::MeasureTextsRequest& measures) {
  SweepMeasures told;
  const std::string& name = evaluation.name();
  if (evaluation.has_responses()) {
    const v1::GenerateResponsesSpec& generation = evaluation.responses().generation();
    AddMeasures(name, measures,
                {.labelled = generation.has_judge(), .asked = generation.judge().has_rubric()},
                v1::TextMeasures(), told);
  } else if (evaluation.has_choices()) {
    AddMeasures(name, evaluation.choices().reading(), v1::ChoicesResult(), told);
  } else {
    const SavedItems& items = static_cast<const EvaluationWork&>(draft).inputs().items;
    if (evaluation.has_questionnaire()) {
      AddMeasures(name, ResultWithValues<v1::QuestionnaireResult>(items), told);
    } else {
      AddMeasures(name, ResultWithValues<v1::TaggedResult>(items), told);
    }
  }
  std::vector<std::string> names;
  for (const v1::SweepMeasure& measure : told) names.push_back(measure.measure());
  return names;
}

absl::Status CheckIsMeasured(const std::string& field, const std::string& evaluation,
                             const std::string& measure, const NamesByEvaluation& names) {
  const std::vector<std::string>& known = names.at(evaluation);
  if (std::find(known.begin(), known.end(), measure) != known.end()) return absl::OkStatus();
  return InvalidField(
      absl::StrCat(field, ".measure"),
      absl::StrCat("must be a measure of `", evaluation, "`: ", absl::StrJoin(known, ", ")));
}

// --- Resolving -----------------------------------------------------------------------------------

// One evaluation, by its kind.
class EvaluationResolver {
 public:
  EvaluationResolver(const Spec& spec, const engine::ServedModel& model,
                     const rpc::CallContext& context, const services::ResolveOptions& options,
                     const SweepKinds& kinds)
      : spec_(spec), model_(model), context_(context), options_(options), kinds_(kinds) {}

  // Under a point of `scope`.
  absl::StatusOr<services::ResolvedWork> Resolve(int number, int scope,
                                                 const Interventions& interventions) const {
    const Evaluation& evaluation = spec_.evaluations(number);
    auto resolved = ResolveBy(evaluation, interventions);
    if (resolved.ok()) return resolved;
    return AsAsked(number, scope, resolved.status());
  }

 private:
  absl::StatusOr<services::ResolvedWork> ResolveBy(const Evaluation& evaluation,
                                                   const Interventions& interventions) const {
    switch (evaluation.evaluation_case()) {
      case Evaluation::kResponses:
        return ResolveAs(*kinds_.responses, evaluation.responses().generation(),
                         /*system_message=*/"", interventions);
      case Evaluation::kQuestionnaire:
        return ResolveAs(*kinds_.questionnaire, evaluation.questionnaire(), nullptr, interventions);
      case Evaluation::kChoices:
        return ResolveAs(*kinds_.choices, evaluation.choices(), nullptr, interventions);
      default:
        return ResolveAs(*kinds_.tagged_responses, evaluation.tagged_responses(), nullptr,
                         interventions);
    }
  }

  // `system_message` is that of a sweep without one; null: none.
  template <typename Request>
  absl::StatusOr<services::ResolvedWork> ResolveAs(services::Kind& kind, Request request,
                                                   const char* system_message,
                                                   const Interventions& interventions) const {
    request.set_model(absl::StrCat("models/", model_.id));
    v1::EvaluationCondition& condition = *request.add_conditions();
    condition.set_name("point");
    *condition.mutable_interventions() = interventions;
    if (spec_.has_system_message()) {
      condition.set_system_message(spec_.system_message());
    } else if (system_message != nullptr) {
      condition.set_system_message(system_message);
    }
    return kind.Resolve(request, context_, options_);
  }

  // Of what the sweep asked for in the place of conditions.
  absl::Status AsAsked(int number, int scope, const absl::Status& status) const {
    const ErrorDetails details = DetailsOf(status);
    if (absl::StartsWith(details.field, "conditions[0].interventions")) {
      const std::string field =
          spec_.scopes().empty() ? "tokens" : absl::StrCat("scopes[", scope, "]");
      return InvalidField(field, details.description, details.reason);
    }
    if (absl::StartsWith(details.field, "conditions")) {
      return InvalidField("system_message", details.description, details.reason);
    }
    return InField(RequestFieldOf(number, spec_.evaluations(number)), status);
  }

  const Spec& spec_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const services::ResolveOptions& options_;
  const SweepKinds& kinds_;
};

void AddEstimate(const services::WorkEstimate& of, bool twice, services::WorkEstimate& sum) {
  const int times = twice ? 2 : 1;
  sum.tokens += times * of.tokens;
  sum.forwards += times * of.forwards;
  sum.bytes += of.bytes;
  sum.time += times * of.time;
}

// Names of models that `needs` lacks.
void AddNeeds(const std::string& more, std::string& needs) {
  const std::string separator(1, services::kNeedsSeparator);
  std::vector<std::string> all = absl::StrSplit(needs, separator, absl::SkipEmpty());
  for (const absl::string_view one : absl::StrSplit(more, separator, absl::SkipEmpty())) {
    if (std::find(all.begin(), all.end(), one) == all.end()) all.emplace_back(one);
  }
  needs = absl::StrJoin(all, separator);
}

// What is measured of responses, with defaults filled in.
absl::StatusOr<v1::MeasureTextsRequest> MeasuresOf(int number, const Evaluation& evaluation,
                                                   const engine::ServedModel& model) {
  const std::string field = absl::StrCat(FieldOf(number), ".responses.measures");
  auto filled =
      studies::WithDefaults(evaluation.responses().measures(), model.architecture.vocabulary);
  if (!filled.ok()) return InField(field, filled.status());
  if (const absl::Status status = studies::TextChecks::Of(*filled).status(); !status.ok()) {
    return InField(field, status);
  }
  return filled;
}

// A point of each scope that is no random one.
std::vector<Interventions> PointOfEachScope(const SweepGrid& grid, int scopes) {
  std::vector<Interventions> points(static_cast<size_t>(scopes));
  for (int64_t i = 0, found = 0; i < grid.size() && found < scopes; ++i) {
    const v1::SweepPoint point = grid.PointAt(i);
    Interventions& of = points[static_cast<size_t>(point.scope())];
    if (point.has_random() || !of.empty()) continue;
    of = grid.InterventionsAt(i, /*matching=*/nullptr);
    ++found;
  }
  return points;
}

}  // namespace

absl::Status CheckEvaluations(const Spec& spec) {
  if (spec.evaluations().empty() || spec.evaluations_size() > kMostEvaluations) {
    return OutOfRange("evaluations", spec.evaluations_size(), 1, kMostEvaluations);
  }
  std::set<std::string> names;
  for (int e = 0; e < spec.evaluations_size(); ++e) {
    const Evaluation& evaluation = spec.evaluations(e);
    VS_RETURN_IF_ERROR(CheckName(absl::StrCat(FieldOf(e), ".name"), evaluation.name(), names));
    VS_RETURN_IF_ERROR(CheckRequest(e, evaluation));
  }
  if (spec.guard_size() > kMostBounds) {
    return OutOfRange("guard", spec.guard_size(), 0, kMostBounds);
  }
  const auto check_is_named = [&](const std::string& field, const std::string& evaluation) {
    return names.contains(evaluation)
               ? absl::OkStatus()
               : InvalidField(absl::StrCat(field, ".evaluation"), "must be one of `evaluations`");
  };
  for (int b = 0; b < spec.guard_size(); ++b) {
    const std::string field = absl::StrCat("guard[", b, "]");
    VS_RETURN_IF_ERROR(check_is_named(field, spec.guard(b).evaluation()));
    VS_RETURN_IF_ERROR(CheckBound(field, spec.guard(b)));
  }
  return check_is_named("objective", spec.objective().evaluation());
}

int64_t DeclaredUnits(const Spec& spec) {
  int64_t units = 0;
  for (const Evaluation& evaluation : spec.evaluations()) {
    const v1::GenerateResponsesSpec& generation = evaluation.responses().generation();
    const int64_t samples = generation.has_samples_per_query() ? generation.samples_per_query() : 1;
    units += evaluation.has_responses()
                 ? 2 * std::max<int64_t>(1, samples) * std::max(1, generation.queries_size())
                 : std::max({1, evaluation.questionnaire().items_size(),
                             evaluation.choices().questions_size(),
                             evaluation.tagged_responses().responses_size()});
  }
  return units;
}

absl::Status ResolveEvaluations(const Spec& spec, const engine::ServedModel& model,
                                const rpc::CallContext& context,
                                const services::ResolveOptions& options, const SweepKinds& kinds,
                                const SweepGrid& grid, ResolvedSweep& resolved) {
  const EvaluationResolver resolver(spec, model, context, options, kinds);
  const std::vector<Interventions> points = PointOfEachScope(grid, resolved.record.scopes_size());
  NamesByEvaluation names;
  for (int e = 0; e < spec.evaluations_size(); ++e) {
    const Evaluation& evaluation = spec.evaluations(e);
    SavedSweepEvaluation& saved = *resolved.record.add_evaluations();
    saved.set_name(evaluation.name());
    bool twice = false;
    if (evaluation.has_responses()) {
      VS_ASSIGN_OR_RETURN(*saved.mutable_measures(), MeasuresOf(e, evaluation, model));
      twice = saved.measures().perplexity();
    }
    for (int scope = 0; scope < static_cast<int>(points.size()); ++scope) {
      VS_ASSIGN_OR_RETURN(services::ResolvedWork work,
                          resolver.Resolve(e, scope, points[static_cast<size_t>(scope)]));
      if (scope > 0) continue;
      resolved.used.insert(work.used.begin(), work.used.end());
      AddNeeds(work.needs, resolved.needs);
      AddEstimate(work.estimate, twice, resolved.estimate);
      resolved.drafts.push_back(std::move(work.work));
    }
    names[evaluation.name()] = NamesOf(evaluation, *resolved.drafts.back(), saved.measures());
  }
  resolved.record.set_bytes_per_point(resolved.estimate.bytes);
  int64_t num_measures = 0;
  for (const auto& [evaluation, of_evaluation] : names) {
    num_measures += static_cast<int64_t>(of_evaluation.size());
  }
  resolved.record.set_bytes_of_point(kBytesOfPoint + num_measures * kBytesOfMeasure);
  for (int b = 0; b < spec.guard_size(); ++b) {
    VS_RETURN_IF_ERROR(CheckIsMeasured(absl::StrCat("guard[", b, "]"), spec.guard(b).evaluation(),
                                       spec.guard(b).measure(), names));
  }
  return CheckIsMeasured("objective", spec.objective().evaluation(), spec.objective().measure(),
                         names);
}

}  // namespace valuescope::kinds
