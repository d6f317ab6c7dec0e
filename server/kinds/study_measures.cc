#include "kinds/study_measures.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "kinds/study_defaults.h"
#include "kinds/study_parts.h"
#include "kinds/sweep_measures.h"
#include "studies/confidence_interval.h"
#include "studies/steering_sweep.h"
#include "studies/text_checks.h"

namespace valuescope::kinds {
namespace {

constexpr char kQuestionnaire[] = "questionnaire", kAccuracy[] = "choices_accuracy";

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

class WayTeller {
 public:
  WayTeller(const StudyGathering& of, const std::vector<TestedWay>& ways,
            const MeasuredWays& measured, const v1::MeasureTextsRequest& filled,
            const std::string& value)
      : of_(of), ways_(ways), measured_(measured), filled_(filled), value_(value) {}

  absl::StatusOr<ToldWays> Tell() {
    for (const TestedWay& way : ways_) points_[way.name] = MeasuresOf(way.name);
    for (const TestedWay& way : ways_) {
      VS_ASSIGN_OR_RETURN(v1::StudyOutcome outcome, OutcomeOf(way));
      told_.outcomes.push_back(std::move(outcome));
    }
    HoldAgainstRandom(kExpressingShare);
    HoldAgainstRandom(kQuestionnaire);
    if (measured_.answers) VS_RETURN_IF_ERROR(AddAnswers(*measured_.answers));
    return std::move(told_);
  }

 private:
  // What the guard may bound, and what is told.
  v1::SweepPoint MeasuresOf(const std::string& way) const {
    v1::SweepPoint point;
    if (measured_.answers) {
      const auto texts = measured_.texts.find(way);
      AddMeasures(kStudyResponses, filled_, CountsOf(*measured_.answers, way),
                  texts == measured_.texts.end() ? v1::TextMeasures() : texts->second,
                  *point.mutable_measures());
    }
    const auto choices = measured_.choices.find(way);
    if (choices != measured_.choices.end()) {
      AddMeasures(kStudyChoices, of_.spec.test_choices().reading(), choices->second,
                  *point.mutable_measures());
    }
    return point;
  }

  // Bounds on what was measured.
  google::protobuf::RepeatedPtrField<v1::SweepBound> Guard() const {
    google::protobuf::RepeatedPtrField<v1::SweepBound> guard;
    for (const v1::SweepBound& bound : of_.spec.guard()) {
      const bool of_choices = bound.evaluation() == kStudyChoices;
      if (of_choices ? !measured_.choices.empty() : measured_.answers.has_value()) {
        *guard.Add() = bound;
      }
    }
    return guard;
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
    v1::SweepPoint point = points_.at(way.name);
    studies::ApplyGuard(Guard(), points_.at(kBaseline), point);
    outcome.set_keeps_guard(point.passes());
    *outcome.mutable_failed_bounds() = point.failed_bounds();
    for (const v1::SweepMeasure& one : point.measures()) {
      const bool of_choices = one.evaluation() == kStudyChoices;
      if (of_choices && one.measure() != "accuracy") continue;
      v1::StudyMeasure& told = *outcome.add_measures();
      told.set_name(of_choices ? kAccuracy : one.measure());
      if (one.has_value()) told.set_value(one.value());
      if (!one.has_lower()) continue;
      *told.mutable_interval() =
          studies::IntervalToProto({.lower = one.lower(), .upper = one.upper(), .level = .95});
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
      if (score.value() != value_) continue;
      v1::StudyMeasure& told = *outcome.add_measures();
      told.set_name(kQuestionnaire);
      told.set_value(score.centred());
      if (!score.has_standard_error()) continue;
      const double reach = analysis::kWithin95 * score.standard_error();
      *told.mutable_interval() = studies::IntervalToProto(
          {.lower = score.centred() - reach, .upper = score.centred() + reach, .level = .95});
    }
    v1::StudyMeasure& mass = *outcome.add_measures();
    mass.set_name("questionnaire_label_mass");
    mass.set_value(found->second.label_mass());
  }

  // With the baseline.
  absl::Status Compare(const std::string& way, v1::StudyMeasure& told) const {
    const v1::StudyMeasure* const base = MeasureOf(told_.outcomes.front(), told.name());
    if (base == nullptr || !base->has_value() || !told.has_value()) return absl::OkStatus();
    told.set_difference(told.value() - base->value());
    if (told.name() == kAccuracy) {
      return Compare(RightAnswersOf(measured_.choices.at(way), measured_.choices.at(kBaseline)),
                     /*with_p=*/true, told);
    }
    if (told.name() == kQuestionnaire) {
      return Compare(ScoresOf(measured_.questionnaires.at(way),
                              measured_.questionnaires.at(kBaseline), value_),
                     /*with_p=*/true, told);
    }
    return measured_.answers ? CompareAnswers(*measured_.answers, way, told) : absl::OkStatus();
  }

  absl::Status CompareAnswers(const ScoredAnswers& answers, const std::string& way,
                              v1::StudyMeasure& told) const {
    if (told.name() == kExpressingShare) {
      return Compare(answers.Expressing(way, kBaseline), /*with_p=*/true, told);
    }
    if (told.name() == "mean_tokens") {
      return Compare(answers.Lengths(way, kBaseline), /*with_p=*/false, told);
    }
    if (told.name() == "refusal_rate") {
      return Compare(answers.Refusals(way, kBaseline), /*with_p=*/false, told);
    }
    return CompareDiversity(answers, way, told);
  }

  absl::Status Compare(const std::vector<analysis::PairedCluster>& clusters, bool with_p,
                       v1::StudyMeasure& told) const {
    told.set_num_clusters(static_cast<int64_t>(clusters.size()));
    VS_ASSIGN_OR_RETURN(const auto interval, BootstrapOf(of_, clusters));
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

  absl::Status CompareDiversity(const ScoredAnswers& answers, const std::string& way,
                                v1::StudyMeasure& told) const {
    absl::string_view rest = told.name();
    const bool adjusted = absl::ConsumePrefix(&rest, "expectation_adjusted_");
    int n = 0;
    if (!absl::ConsumePrefix(&rest, "distinct_") || !absl::SimpleAtoi(rest, &n)) {
      return absl::OkStatus();
    }
    VS_ASSIGN_OR_RETURN(const analysis::DiversityDifference difference,
                        analysis::JackknifeDiversity(answers.Texts(way), answers.Texts(kBaseline),
                                                     n, filled_.vocabulary()));
    const auto& interval =
        adjusted ? difference.expectation_adjusted_interval : difference.distinct_interval;
    told.set_num_clusters(static_cast<int64_t>(answers.queries().size()));
    if (interval) *told.mutable_difference_interval() = studies::IntervalToProto(*interval);
    return absl::OkStatus();
  }

  // What is steered along, against random directions that were chosen in the same way.
  void HoldAgainstRandom(const std::string& name) {
    std::vector<double> random;
    for (const v1::StudyOutcome& outcome : told_.outcomes) {
      const v1::StudyMeasure* const told = MeasureOf(outcome, name);
      if (outcome.subject().has_random_direction() && told != nullptr && told->has_value()) {
        random.push_back(told->value());
      }
    }
    if (random.empty()) return;
    for (v1::StudyOutcome& outcome : told_.outcomes) {
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

  absl::Status AddAnswers(const ScoredAnswers& scored) {
    const auto& queries = scored.queries();
    const size_t shown = std::min(queries.size(), static_cast<size_t>(of_.spec.shown_queries()));
    for (size_t q = 0; q < shown; ++q) {
      v1::StudyAnswers& answers = told_.answers.emplace_back();
      answers.set_query(queries[q]);
      for (const TestedWay& way : ways_) {
        if (way.subject && way.subject->has_random_direction()) continue;
        const ScoredAnswer& answer = scored.Of(way.name)[q].front();
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
  const std::vector<TestedWay>& ways_;
  const MeasuredWays& measured_;
  const v1::MeasureTextsRequest& filled_;
  const std::string& value_;
  std::map<std::string, v1::SweepPoint> points_;  // by way
  ToldWays told_;
};

}  // namespace

absl::StatusOr<MeasuredWays> ReadWays(const StudyGathering& of, const std::string& value,
                                      const v1::StudyLanguage& language) {
  MeasuredWays measured;
  if (!language.test_queries().empty()) {
    VS_ASSIGN_OR_RETURN(const studies::TextChecks checks,
                        studies::TextChecks::Of(of.spec.measures()));
    VS_ASSIGN_OR_RETURN(measured.answers,
                        ScoredAnswers::Read(of.parts, PhaseOf("score", value, language),
                                            of.model.text->tokenizer(), checks));
    v1::MeasureTextsResponse texts;
    VS_RETURN_IF_ERROR(of.parts.ReadSummary(PhaseOf("measure", value, language), texts));
    for (const v1::TextMeasures& one : texts.measures()) measured.texts[one.condition()] = one;
  }
  if (language.has_questionnaire()) {
    v1::AskQuestionnaireResponse asked;
    VS_RETURN_IF_ERROR(of.parts.ReadSummary(PhaseOf("ask", value, language), asked));
    for (const auto& one : asked.results()) measured.questionnaires[one.condition()] = one;
  }
  if (language.name().empty() && of.spec.has_test_choices()) {
    v1::AnswerChoicesResponse chosen;
    VS_RETURN_IF_ERROR(of.parts.ReadSummary(PhaseOf("choose", value), chosen));
    for (const auto& one : chosen.results()) measured.choices[one.condition()] = one;
  }
  return measured;
}

absl::StatusOr<ToldWays> TellWays(const StudyGathering& of, const std::vector<TestedWay>& ways,
                                  const MeasuredWays& measured,
                                  const v1::MeasureTextsRequest& filled, const std::string& value) {
  return WayTeller(of, ways, measured, filled, value).Tell();
}

const v1::StudyMeasure* MeasureOf(const v1::StudyOutcome& outcome, const std::string& name) {
  for (const v1::StudyMeasure& told : outcome.measures()) {
    if (told.name() == name) return &told;
  }
  return nullptr;
}

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

absl::StatusOr<std::optional<analysis::ConfidenceInterval>> BootstrapOf(
    const StudyGathering& of, const std::vector<analysis::PairedCluster>& clusters) {
  return analysis::BootstrapDifference(
      clusters, {.draws = of.spec.bootstrap_samples(), .seed = of.spec.seed()},
      of.context.cancellation);
}

}  // namespace valuescope::kinds
