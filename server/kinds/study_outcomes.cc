#include "kinds/study_outcomes.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "analysis/paired_differences.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/study_answers.h"
#include "kinds/study_defaults.h"
#include "kinds/study_paper.h"
#include "kinds/study_parts.h"
#include "kinds/study_points.h"
#include "kinds/sweep_measures.h"
#include "studies/confidence_interval.h"
#include "studies/measure_texts.h"
#include "studies/steering_sweep.h"

namespace valuescope::kinds {
namespace {

constexpr char kQuestionnaire[] = "questionnaire", kAccuracy[] = "choices_accuracy";
constexpr int kFewTestQueries = 60;

// What was measured of one value, by the names of its ways.
struct Measured {
  ScoredAnswers answers;
  std::map<std::string, v1::TextMeasures> texts;
  std::map<std::string, v1::QuestionnaireResult> questionnaires;
  std::map<std::string, v1::ChoicesResult> choices;
};

absl::StatusOr<Measured> Read(const StudyGathering& of, const std::string& value) {
  const auto phase = [&](absl::string_view what) { return absl::StrCat(what, "/", value); };
  Measured measured;
  VS_ASSIGN_OR_RETURN(measured.answers, ScoredAnswers::Read(of.parts, phase("score")));
  v1::MeasureTextsResponse texts;
  VS_RETURN_IF_ERROR(of.parts.ReadSummary(phase("measure"), texts));
  for (const v1::TextMeasures& one : texts.measures()) measured.texts[one.condition()] = one;
  if (of.spec.has_questionnaire()) {
    v1::AskQuestionnaireResponse asked;
    VS_RETURN_IF_ERROR(of.parts.ReadSummary(phase("ask"), asked));
    for (const auto& one : asked.results()) measured.questionnaires[one.condition()] = one;
  }
  if (of.spec.has_test_choices()) {
    v1::AnswerChoicesResponse chosen;
    VS_RETURN_IF_ERROR(of.parts.ReadSummary(phase("choose"), chosen));
    for (const auto& one : chosen.results()) measured.choices[one.condition()] = one;
  }
  return measured;
}

JudgedCounts CountsOf(const ScoredAnswers& answers, const std::string& way) {
  JudgedCounts counts;
  counts.labelled = true;
  for (const std::vector<ScoredAnswer>& of_query : answers.Of(way)) {
    for (const ScoredAnswer& answer : of_query) {
      ++counts.responses;
      counts.empty += answer.ids.empty();
      counts.expressing += answer.expresses;
    }
  }
  return counts;
}

// --- Items ---------------------------------------------------------------------------------------

// The value's score less the mean over all items, item by item; both results are of the same items.
std::vector<analysis::PairedCluster> ScoresOf(const v1::QuestionnaireResult& first,
                                              const v1::QuestionnaireResult& second,
                                              const std::string& value) {
  std::vector<analysis::PairedCluster> clusters;
  for (int i = 0; i < std::min(first.items_size(), second.items_size()); ++i) {
    if (first.items(i).value() != value) continue;
    clusters.push_back({.first_sum = first.items(i).score() - first.mean(),
                        .first_count = 1,
                        .second_sum = second.items(i).score() - second.mean(),
                        .second_count = 1});
  }
  return clusters;
}

std::vector<analysis::PairedCluster> RightAnswersOf(const v1::ChoicesResult& first,
                                                    const v1::ChoicesResult& second) {
  std::vector<analysis::PairedCluster> clusters;
  for (int i = 0; i < std::min(first.answers_size(), second.answers_size()); ++i) {
    clusters.push_back({.first_sum = first.answers(i).correct() ? 1.0 : 0.0,
                        .first_count = 1,
                        .second_sum = second.answers(i).correct() ? 1.0 : 0.0,
                        .second_count = 1});
  }
  return clusters;
}

// --- One value -----------------------------------------------------------------------------------

class OutcomeWriter {
 public:
  OutcomeWriter(const StudyGathering& of, const SavedStudyState& state, const Measured& measured,
                v1::MeasureTextsRequest filled, v1::StudiedValue& value)
      : of_(of),
        ways_(WaysToTest(state, value)),
        measured_(measured),
        filled_(std::move(filled)),
        value_(value) {}

  absl::Status Write() {
    for (const TestedWay& way : ways_) tested_[way.name] = MeasuresOf(way.name);
    for (const TestedWay& way : ways_) {
      VS_ASSIGN_OR_RETURN(*value_.add_outcomes(), OutcomeOf(way));
    }
    HoldAgainstRandom(kExpressingShare);
    HoldAgainstRandom(kQuestionnaire);
    return AddAnswers();
  }

 private:
  // What the guard may bound, and what is told.
  v1::SweepPoint MeasuresOf(const std::string& way) const {
    v1::SweepPoint point;
    const auto texts = measured_.texts.find(way);
    AddMeasures(kStudyResponses, filled_, CountsOf(measured_.answers, way),
                texts == measured_.texts.end() ? v1::TextMeasures() : texts->second,
                *point.mutable_measures());
    const auto choices = measured_.choices.find(way);
    if (choices != measured_.choices.end()) {
      AddMeasures(kStudyChoices, of_.spec.test_choices().reading(), choices->second,
                  *point.mutable_measures());
    }
    return point;
  }

  absl::StatusOr<v1::StudyOutcome> OutcomeOf(const TestedWay& way) const {
    v1::StudyOutcome outcome;
    outcome.set_name(way.name);
    if (way.subject) {
      *outcome.mutable_subject() = *way.subject;
      *outcome.mutable_layers() = way.point.layers();
      if (way.point.has_coefficient()) outcome.set_coefficient(way.point.coefficient());
      if (way.point.has_factor()) outcome.set_factor(way.point.factor());
      if (way.point.has_top_percent()) outcome.set_top_percent(way.point.top_percent());
      if (way.point.has_max_angle()) outcome.set_max_angle(way.point.max_angle());
    }
    v1::SweepPoint point = tested_.at(way.name);
    studies::ApplyGuard(of_.spec.guard(), tested_.at(kBaseline), point);
    outcome.set_keeps_guard(point.passes());
    *outcome.mutable_failed_bounds() = point.failed_bounds();
    for (const v1::SweepMeasure& one : point.measures()) {
      const bool of_choices = one.evaluation() == kStudyChoices;
      if (of_choices && one.measure() != "accuracy") continue;
      v1::StudyMeasure& told = *outcome.add_measures();
      told.set_name(of_choices ? kAccuracy : one.measure());
      if (one.has_value()) told.set_value(one.value());
      if (!one.has_lower()) continue;
      told.mutable_interval()->set_lower(one.lower());
      told.mutable_interval()->set_upper(one.upper());
      told.mutable_interval()->set_level(.95);
    }
    AddQuestionnaire(way.name, outcome);
    if (way.name == kBaseline) return outcome;
    for (v1::StudyMeasure& told : *outcome.mutable_measures()) {
      VS_RETURN_IF_ERROR(Compare(way.name, told));
    }
    return outcome;
  }

  void AddQuestionnaire(const std::string& way, v1::StudyOutcome& outcome) const {
    const auto found = measured_.questionnaires.find(way);
    if (found == measured_.questionnaires.end()) return;
    for (const v1::ValueScore& score : found->second.values()) {
      if (score.value() != value_.value()) continue;
      v1::StudyMeasure& told = *outcome.add_measures();
      told.set_name(kQuestionnaire);
      told.set_value(score.centred());
      if (!score.has_standard_error()) continue;
      constexpr double kWithin95 = 1.96;
      told.mutable_interval()->set_lower(score.centred() - kWithin95 * score.standard_error());
      told.mutable_interval()->set_upper(score.centred() + kWithin95 * score.standard_error());
      told.mutable_interval()->set_level(.95);
    }
    v1::StudyMeasure& mass = *outcome.add_measures();
    mass.set_name("questionnaire_label_mass");
    mass.set_value(found->second.label_mass());
  }

  // With the baseline.
  absl::Status Compare(const std::string& way, v1::StudyMeasure& told) const {
    const v1::StudyMeasure* const base = MeasureOf(value_.outcomes(0), told.name());
    if (base == nullptr || !base->has_value() || !told.has_value()) return absl::OkStatus();
    told.set_difference(told.value() - base->value());
    const ScoredAnswers& answers = measured_.answers;
    if (told.name() == kExpressingShare) {
      return Compare(answers.Expressing(way, kBaseline), /*with_p=*/true, told);
    }
    if (told.name() == "mean_tokens") {
      return Compare(answers.Lengths(way, kBaseline), /*with_p=*/false, told);
    }
    if (told.name() == kAccuracy) {
      return Compare(RightAnswersOf(measured_.choices.at(way), measured_.choices.at(kBaseline)),
                     /*with_p=*/true, told);
    }
    if (told.name() == kQuestionnaire) {
      return Compare(ScoresOf(measured_.questionnaires.at(way),
                              measured_.questionnaires.at(kBaseline), value_.value()),
                     /*with_p=*/true, told);
    }
    return CompareDiversity(way, told);
  }

  absl::Status Compare(const std::vector<analysis::PairedCluster>& clusters, bool with_p,
                       v1::StudyMeasure& told) const {
    told.set_num_clusters(static_cast<int64_t>(clusters.size()));
    VS_ASSIGN_OR_RETURN(
        const auto interval,
        analysis::BootstrapDifference(
            clusters, {.draws = of_.spec.bootstrap_samples(), .seed = of_.spec.seed()},
            of_.context.cancellation));
    if (interval) {
      *told.mutable_difference_interval() = studies::IntervalToProto(*interval);
    }
    if (!with_p) return absl::OkStatus();
    VS_ASSIGN_OR_RETURN(const auto p_value,
                        analysis::SignFlipPValue(
                            clusters, {.draws = of_.spec.permutations(), .seed = of_.spec.seed()},
                            of_.context.cancellation));
    if (p_value) told.set_p_value(*p_value);
    return absl::OkStatus();
  }

  absl::Status CompareDiversity(const std::string& way, v1::StudyMeasure& told) const {
    absl::string_view rest = told.name();
    const bool adjusted = absl::ConsumePrefix(&rest, "expectation_adjusted_");
    int n = 0;
    if (!absl::ConsumePrefix(&rest, "distinct_") || !absl::SimpleAtoi(rest, &n)) {
      return absl::OkStatus();
    }
    VS_ASSIGN_OR_RETURN(
        const analysis::DiversityDifference difference,
        analysis::JackknifeDiversity(measured_.answers.Texts(way),
                                     measured_.answers.Texts(kBaseline), n, filled_.vocabulary()));
    const auto& interval =
        adjusted ? difference.expectation_adjusted_interval : difference.distinct_interval;
    told.set_num_clusters(static_cast<int64_t>(measured_.answers.queries().size()));
    if (interval) *told.mutable_difference_interval() = studies::IntervalToProto(*interval);
    return absl::OkStatus();
  }

  // What is steered along, against random directions that were chosen in the same way.
  void HoldAgainstRandom(const std::string& name) {
    std::vector<double> random;
    for (const v1::StudyOutcome& outcome : value_.outcomes()) {
      const v1::StudyMeasure* const told = MeasureOf(outcome, name);
      if (outcome.subject().has_random_direction() && told != nullptr && told->has_value()) {
        random.push_back(told->value());
      }
    }
    if (random.empty()) return;
    for (v1::StudyOutcome& outcome : *value_.mutable_outcomes()) {
      if (!outcome.subject().has_direction()) continue;
      for (v1::StudyMeasure& told : *outcome.mutable_measures()) {
        if (told.name() != name || !told.has_value()) continue;
        const auto as_large = std::count_if(random.begin(), random.end(),
                                            [&](double one) { return one >= told.value(); });
        told.set_random_p_value(static_cast<double>(1 + as_large) /
                                static_cast<double>(1 + of_.spec.random_directions()));
      }
    }
  }

  absl::Status AddAnswers() {
    const auto& queries = measured_.answers.queries();
    const size_t shown = std::min(queries.size(), static_cast<size_t>(of_.spec.shown_queries()));
    for (size_t q = 0; q < shown; ++q) {
      v1::StudyAnswers& answers = *value_.add_answers();
      answers.set_query(queries[q]);
      for (const TestedWay& way : ways_) {
        if (way.subject && way.subject->has_random_direction()) continue;
        const ScoredAnswer& answer = measured_.answers.Of(way.name)[q].front();
        v1::StudyAnswer& told = *answers.add_answers();
        told.set_outcome(way.name);
        told.set_expresses(answer.expresses);
        VS_ASSIGN_OR_RETURN(*told.mutable_text(),
                            of_.model.text->tokenizer().Decode(answer.ids,
                                                               /*skip_special_tokens=*/true));
      }
    }
    return absl::OkStatus();
  }

  const StudyGathering& of_;
  const std::vector<TestedWay> ways_;
  const Measured& measured_;
  const v1::MeasureTextsRequest filled_;
  v1::StudiedValue& value_;
  std::map<std::string, v1::SweepPoint> tested_;
};

// --- Over the values -----------------------------------------------------------------------------

bool IsCompared(const v1::StudyOutcome& outcome) {
  return outcome.has_subject() && !outcome.subject().has_random_direction();
}

void AdjustPValues(v1::ValueStudyResult& result) {
  std::vector<v1::StudyMeasure*> compared;
  std::vector<double> p_values;
  for (v1::StudiedValue& value : *result.mutable_values()) {
    for (v1::StudyOutcome& outcome : *value.mutable_outcomes()) {
      for (v1::StudyMeasure& told : *outcome.mutable_measures()) {
        if (!IsCompared(outcome) || told.name() != kExpressingShare || !told.has_p_value()) {
          continue;
        }
        compared.push_back(&told);
        p_values.push_back(told.p_value());
      }
    }
  }
  const std::vector<double> adjusted = analysis::HolmAdjusted(p_values);
  for (size_t i = 0; i < compared.size(); ++i) compared[i]->set_adjusted_p_value(adjusted[i]);
  result.set_num_comparisons(static_cast<int64_t>(compared.size()));
}

void AddWarnings(const v1::ValueStudySpec& spec, v1::ValueStudyResult& result) {
  const auto warn = [&](std::string what) { result.add_warnings(std::move(what)); };
  if (spec.test_queries_size() < kFewTestQueries) {
    warn(absl::StrCat(spec.test_queries_size(), " test queries are too few to tell small effects: ",
                      kFewTestQueries, " or more are needed"));
  }
  if (spec.random_directions() < 20) {
    warn(absl::StrCat(spec.random_directions(),
                      " random directions are too few to tell what chance comes to: 20 or more are "
                      "needed"));
  }
  if (!spec.has_development_choices()) {
    warn(
        "no multiple choice was asked: the guard knows the texts' quality and not the model's "
        "capability");
  } else if (spec.development_choices().SerializeAsString() ==
             spec.test_choices().SerializeAsString()) {
    warn("the same multiple choice guards the choice and is reported");
  }
  for (const v1::StudiedValue& value : result.values()) {
    if (!value.failure().empty()) warn(absl::StrCat("`", value.value(), "`: ", value.failure()));
    for (const v1::StudyOutcome& outcome : value.outcomes()) {
      if (!IsCompared(outcome) || outcome.keeps_guard()) continue;
      warn(absl::StrCat("`", value.value(), "` ", outcome.name(),
                        " breaks the guard on test queries, though it kept it on development "
                        "queries: its numbers say nothing of the value"));
    }
  }
}

}  // namespace

const v1::StudyMeasure* MeasureOf(const v1::StudyOutcome& outcome, const std::string& name) {
  for (const v1::StudyMeasure& told : outcome.measures()) {
    if (told.name() == name) return &told;
  }
  return nullptr;
}

absl::Status GatherOutcomes(const StudyGathering& of, SavedStudyState& state) {
  VS_ASSIGN_OR_RETURN(const v1::MeasureTextsRequest filled,
                      studies::WithDefaults(of.spec.measures(), of.model.architecture.vocabulary));
  for (v1::StudiedValue& value : *state.mutable_result()->mutable_values()) {
    if (!value.failure().empty()) continue;
    VS_ASSIGN_OR_RETURN(const Measured measured, Read(of, value.value()));
    VS_RETURN_IF_ERROR(OutcomeWriter(of, state, measured, filled, value).Write());
    VS_RETURN_IF_ERROR(AddPaperQuantities(of, measured.answers, measured.questionnaires,
                                          filled.vocabulary(), value,
                                          *state.mutable_result()->mutable_paper()));
  }
  v1::ValueStudyResult& result = *state.mutable_result();
  AdjustPValues(result);
  AddWarnings(of.spec, result);
  AddPaperQuantitiesOverValues(result);
  return absl::OkStatus();
}

}  // namespace valuescope::kinds
