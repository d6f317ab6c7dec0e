#include "kinds/sweep_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/response_work.h"
#include "kinds/sweep_evaluations.h"
#include "kinds/sweep_grid.h"
#include "kinds/sweep_subjects.h"
#include "services/idempotency.h"
#include "services/intervention_codec.h"
#include "studies/distinct_elements.h"

namespace valuescope::kinds {
namespace {

using Spec = v1::SteeringSweepSpec;

constexpr int kMostSubjects = 64, kMostValues = 64, kMostScopes = 8, kMostRandom = 100;
constexpr int kMostOfClass = 16;  // k, angles, and pairs of them
constexpr char kInEvaluations[] = "must be unset: it stands in `evaluations`";

absl::Status CheckRefused(const Spec& spec) {
  if (!spec.prompts().empty()) return InvalidField("prompts", kInEvaluations);
  if (!spec.artifact().empty()) return InvalidField("artifact", kInEvaluations);
  if (spec.has_sampling()) return InvalidField("sampling", kInEvaluations);
  if (spec.has_samples_per_prompt()) return InvalidField("samples_per_prompt", kInEvaluations);
  if (spec.has_judge()) return InvalidField("judge", kInEvaluations);
  return absl::OkStatus();
}

// Finite, no two equal, at most `most`.
template <typename Numbers>
absl::Status CheckNumbers(const std::string& field, const Numbers& numbers, int most) {
  if (numbers.size() > most) return OutOfRange(field, numbers.size(), 1, most);
  for (int i = 0; i < numbers.size(); ++i) {
    if (std::isfinite(numbers[i])) continue;
    return InvalidField(absl::StrCat(field, "[", i, "]"), "must be finite", "NOT_FINITE");
  }
  return studies::CheckDistinct(field, numbers, [](double number) { return number; });
}

// Coefficients or factors of subjects that are there or not; `neutral` changes nothing.
absl::Status CheckValues(const std::string& field,
                         const google::protobuf::RepeatedField<float>& values, float neutral,
                         bool subjects, const std::string& of) {
  VS_RETURN_IF_ERROR(CheckNumbers(field, values, kMostValues));
  if (!subjects) {
    return values.empty() ? absl::OkStatus()
                          : InvalidField(field, absl::StrCat("must be unset without ", of));
  }
  if (std::all_of(values.begin(), values.end(), [=](float v) { return v == neutral; })) {
    return InvalidField(field, absl::StrCat("must hold a number other than ", neutral, ", 1 to ",
                                            kMostValues, " in all"));
  }
  return absl::OkStatus();
}

absl::Status CheckSubjects(const Spec& spec) {
  const int neurons = spec.neuron_sets_size() + spec.classes_size();
  const int subjects = spec.vectors_size() + neurons;
  if (subjects == 0) return InvalidField("vectors", "or neuron_sets or classes must be given");
  if (subjects > kMostSubjects) {
    return InvalidField("vectors",
                        absl::StrCat("and neuron_sets and classes are ", subjects,
                                     ", allowed are 1 .. ", kMostSubjects, " together"),
                        "OUT_OF_RANGE");
  }
  VS_RETURN_IF_ERROR(CheckValues("coefficients", spec.coefficients(), /*neutral=*/0,
                                 spec.vectors_size() > 0, "vectors"));
  VS_RETURN_IF_ERROR(
      CheckValues("factors", spec.factors(), /*neutral=*/1, neurons > 0, "neuron_sets or classes"));
  if (spec.random_directions() < 0 || spec.random_directions() > kMostRandom) {
    return OutOfRange("random_directions", spec.random_directions(), 0, kMostRandom);
  }
  const bool any_responses =
      std::any_of(spec.evaluations().begin(), spec.evaluations().end(),
                  [](const v1::SweepEvaluation& one) { return one.has_responses(); });
  if (neurons == 0 || spec.random_directions() == 0 || any_responses) return absl::OkStatus();
  return InvalidField("random_directions",
                      "needs an evaluation by responses where neurons are swept: random sets are "
                      "drawn by how active neurons are in them");
}

// Equal of scopes that are spelled differently and select the same tokens of every prompt.
std::pair<v1::TokenKind, std::set<int64_t>> KeyOf(const v1::TokenSelection& scope) {
  v1::TokenKind kind = scope.kind();
  if (kind == v1::TOKEN_KIND_UNSPECIFIED) {
    kind = scope.positions().empty() ? v1::TOKEN_KIND_FROM_LAST_PROMPT : v1::TOKEN_KIND_POSITIONS;
  }
  if (kind == v1::TOKEN_KIND_GENERATED) kind = v1::TOKEN_KIND_RESPONSE;
  return {kind, {scope.positions().begin(), scope.positions().end()}};
}

absl::Status CheckScopes(const Spec& spec) {
  if (spec.scopes_size() > kMostScopes) {
    return OutOfRange("scopes", spec.scopes_size(), 1, kMostScopes);
  }
  if (spec.has_tokens() && !spec.scopes().empty()) {
    return InvalidField("tokens", "must be unset where `scopes` are given");
  }
  return studies::CheckDistinct("scopes", spec.scopes(), KeyOf);
}

absl::Status CheckClasses(const std::string& field, const v1::SweptClasses& swept) {
  const std::string of = absl::StrCat(field, ".classification");
  const v1::ClassifyNeuronsRequest& request = swept.classification();
  constexpr char kOfSweep[] = "must be unset here";
  if (!request.model().empty()) return InvalidField(absl::StrCat(of, ".model"), kOfSweep);
  if (request.has_layers()) return InvalidField(absl::StrCat(of, ".layers"), kOfSweep);
  if (request.has_top_percent()) return InvalidField(absl::StrCat(of, ".top_percent"), kOfSweep);
  if (request.has_max_angle()) return InvalidField(absl::StrCat(of, ".max_angle"), kOfSweep);
  if (request.has_top_k()) return InvalidField(absl::StrCat(of, ".top_k"), kOfSweep);
  if (!request.display_name().empty()) {
    return InvalidField(absl::StrCat(of, ".display_name"), kOfSweep);
  }
  if (!request.request_id().empty()) return InvalidField(absl::StrCat(of, ".request_id"), kOfSweep);
  const bool negative = swept.class_() == v1::NEURON_CLASS_SHARED_NEGATIVE;
  const bool known = swept.class_() == v1::NEURON_CLASS_SHARED ||
                     swept.class_() == v1::NEURON_CLASS_INTRINSIC ||
                     swept.class_() == v1::NEURON_CLASS_PROMPTED;
  if (!known && !(negative && request.admit_negative_shared())) {
    return InvalidField(absl::StrCat(field, ".class"),
                        "must be SHARED, INTRINSIC, PROMPTED or, with admit_negative_shared, "
                        "SHARED_NEGATIVE");
  }
  VS_RETURN_IF_ERROR(
      CheckNumbers(absl::StrCat(field, ".top_percents"), swept.top_percents(), kMostOfClass));
  VS_RETURN_IF_ERROR(
      CheckNumbers(absl::StrCat(field, ".max_angles"), swept.max_angles(), kMostOfClass));
  const int pairs = swept.top_percents_size() * swept.max_angles_size();
  if (pairs <= kMostOfClass) return absl::OkStatus();
  return InvalidField(
      absl::StrCat(field, ".top_percents"),
      absl::StrCat("times max_angles are ", pairs, " pairs, allowed are at most ", kMostOfClass),
      "OUT_OF_RANGE");
}

int64_t PointsOf(const Spec& spec, int64_t layers) {
  const int64_t places = (spec.layers_together() ? 1 : layers) * std::max(1, spec.scopes_size());
  int64_t of_neurons = spec.neuron_sets_size();
  for (const v1::SweptClasses& swept : spec.classes()) {
    of_neurons += std::max(1, swept.top_percents_size()) * std::max(1, swept.max_angles_size());
  }
  const int64_t values =
      int64_t{spec.vectors_size()} * spec.coefficients_size() + of_neurons * spec.factors_size();
  return places * values * (1 + spec.random_directions());
}

absl::Status CheckOne(const Interventions& interventions, const std::string& field,
                      const engine::ServedModel& model, const rpc::CallContext& context,
                      const Sources& sources, services::UsedResources& used) {
  VS_RETURN_IF_ERROR(context.Why());
  const absl::Status status =
      services::PreparedFromProto(interventions, {context.tenant, model, *sources.vectors}, used)
          .status();
  if (DetailsOf(status).field.empty()) return status;
  return InvalidField(field, DetailsOf(status).description, DetailsOf(status).reason);
}

// Without what would change nothing.
void AddValues(const google::protobuf::RepeatedField<float>& from, float neutral,
               google::protobuf::RepeatedField<float>& to) {
  for (const float value : from) {
    if (value != neutral) to.Add(value);
  }
}

// No element of a vector, or of a random direction in its place, is larger than its norm.
absl::Status CheckStrengths(const Spec& spec, const SavedSweep& sweep) {
  for (const SavedSweepSubject& subject : sweep.subjects()) {
    for (const double norm : subject.norms()) {
      for (int i = 0; i < spec.coefficients_size(); ++i) {
        if (std::abs(spec.coefficients(i) * norm) <= std::numeric_limits<float>::max()) continue;
        return InvalidField(absl::StrCat("coefficients[", i, "]"),
                            absl::StrCat("is too large for `", subject.name(),
                                         "`: their product is beyond float32"),
                            "OUT_OF_RANGE");
      }
    }
  }
  return absl::OkStatus();
}

// The first point of each subject and scope as the model takes it.
absl::Status CheckPoints(const Spec& spec, const SweepGrid& grid, const engine::ServedModel& model,
                         const rpc::CallContext& context, const Sources& sources,
                         services::UsedResources& used) {
  std::set<std::pair<std::string, int>> seen;
  for (int64_t i = 0; i < grid.size(); ++i) {
    const v1::SweepPoint point = grid.PointAt(i);
    if (point.has_random() || !seen.insert({point.subject(), point.scope()}).second) continue;
    const std::string field =
        spec.scopes().empty() ? "tokens" : absl::StrCat("scopes[", point.scope(), "]");
    VS_RETURN_IF_ERROR(CheckOne(grid.InterventionsAt(i, /*matching=*/nullptr), field, model,
                                context, sources, used));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSweepSize(const Spec& spec, int num_layers) {
  VS_RETURN_IF_ERROR(CheckRefused(spec));
  VS_RETURN_IF_ERROR(CheckSubjects(spec));
  VS_RETURN_IF_ERROR(CheckScopes(spec));
  for (int i = 0; i < spec.classes_size(); ++i) {
    VS_RETURN_IF_ERROR(CheckClasses(absl::StrCat("classes[", i, "]"), spec.classes(i)));
  }
  VS_RETURN_IF_ERROR(studies::CheckDistinct(
      "classes", spec.classes(),
      [](const v1::SweptClasses& swept) { return services::DeterministicBytes(swept); }));
  VS_RETURN_IF_ERROR(CheckEvaluations(spec));
  int64_t layers = num_layers;
  if (spec.has_layers()) {
    VS_ASSIGN_OR_RETURN(
        const std::vector<int> chosen,
        services::LayersFromProto("layers", &spec.layers(), {.num_layers = num_layers}));
    layers = static_cast<int64_t>(chosen.size());
  }
  return CheckMeasurements(PointsOf(spec, layers), DeclaredUnits(spec));
}

absl::Status CheckMeasurements(int64_t points, int64_t units_per_point) {
  if (points > kMostSweepPoints) {
    return NeverFits("SWEEP_TOO_LARGE",
                     absl::StrCat("the grid has ", points, " points with its random directions, ",
                                  "allowed are at most ", kMostSweepPoints));
  }
  if (units_per_point <= kMostMeasurements / (1 + points)) return absl::OkStatus();
  return NeverFits(
      "SWEEP_TOO_LARGE",
      absl::StrCat("`evaluations` take ", units_per_point, " measurements at each of ", points,
                   " points and the baseline, allowed are at most ", kMostMeasurements, " in all"));
}

absl::StatusOr<ResolvedSweep> ResolveSweep(const Spec& spec, const engine::ServedModel& model,
                                           const rpc::CallContext& context,
                                           const services::ResolveOptions& options,
                                           const Sources& sources, const SweepKinds& kinds) {
  ResolvedSweep resolved;
  SavedSweep& sweep = resolved.record;
  sweep.set_layers_together(spec.layers_together());
  AddValues(spec.coefficients(), /*neutral=*/0, *sweep.mutable_coefficients());
  AddValues(spec.factors(), /*neutral=*/1, *sweep.mutable_factors());
  *sweep.mutable_scopes() = spec.scopes();
  if (spec.scopes().empty()) *sweep.add_scopes() = spec.tokens();
  sweep.set_num_random(spec.random_directions());
  sweep.set_seed(spec.seed());
  *sweep.mutable_guard() = spec.guard();
  *sweep.mutable_objective() = spec.objective();
  VS_RETURN_IF_ERROR(ResolveSubjects(spec, model, context, sources, resolved.used, sweep));
  VS_RETURN_IF_ERROR(CheckStrengths(spec, sweep));
  const SweepGrid grid(sweep, model.architecture.hidden);
  VS_RETURN_IF_ERROR(CheckPoints(spec, grid, model, context, sources, resolved.used));
  VS_RETURN_IF_ERROR(ResolveEvaluations(spec, model, context, options, kinds, grid, resolved));
  int64_t units = 0;
  for (int e = 0; e < spec.evaluations_size(); ++e) {
    const int64_t of_work = resolved.drafts[static_cast<size_t>(e)]->extent().units;
    units += spec.evaluations(e).has_responses() ? 2 * of_work : of_work;
  }
  VS_RETURN_IF_ERROR(CheckMeasurements(grid.size(), units));
  return resolved;
}

}  // namespace valuescope::kinds
