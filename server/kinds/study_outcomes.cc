#include "kinds/study_outcomes.h"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "analysis/paired_differences.h"
#include "base/status_macros.h"
#include "kinds/study_defaults.h"
#include "kinds/study_measures.h"
#include "kinds/study_paper.h"
#include "kinds/study_parts.h"
#include "kinds/study_points.h"
#include "studies/measure_texts.h"

namespace valuescope::kinds {
namespace {

constexpr int kFewTestQueries = 60;

using Outcomes = google::protobuf::RepeatedPtrField<v1::StudyOutcome>;

// --- One value -----------------------------------------------------------------------------------

// What is chosen in the study's own language has to keep the guard there too.
void HoldAgainstOwn(const v1::StudyOutcome& own, v1::StudyOutcome& outcome) {
  outcome.set_keeps_guard(outcome.keeps_guard() && own.keeps_guard());
  google::protobuf::RepeatedPtrField<std::string> bounds = own.failed_bounds();
  bounds.MergeFrom(outcome.failed_bounds());
  *outcome.mutable_failed_bounds() = std::move(bounds);
}

absl::Status GatherLanguage(const StudyGathering& of, const v1::StudyLanguage& language,
                            const v1::MeasureTextsRequest& filled, SavedStudyState& state,
                            v1::StudiedValue& value) {
  VS_ASSIGN_OR_RETURN(const MeasuredWays measured, ReadWays(of, value.value(), language));
  VS_ASSIGN_OR_RETURN(const ToldWays told, TellWays(of, WaysToTest(state, value, language),
                                                    measured, filled, value.value()));
  if (language.name().empty()) {
    value.mutable_outcomes()->Assign(told.outcomes.begin(), told.outcomes.end());
    value.mutable_answers()->Assign(told.answers.begin(), told.answers.end());
    return AddPaperQuantities(of, *measured.answers, measured.questionnaires, filled.vocabulary(),
                              value, *state.mutable_result()->mutable_paper());
  }
  v1::StudyTransfer& transfer = *value.add_transfers();
  transfer.set_language(language.name());
  transfer.mutable_outcomes()->Assign(told.outcomes.begin(), told.outcomes.end());
  transfer.mutable_answers()->Assign(told.answers.begin(), told.answers.end());
  // Both begin with the same ways, in the same order.
  for (int o = 0; o < transfer.outcomes_size(); ++o) {
    HoldAgainstOwn(value.outcomes(o), *transfer.mutable_outcomes(o));
  }
  return absl::OkStatus();
}

// --- Over the values -----------------------------------------------------------------------------

bool IsCompared(const v1::StudyOutcome& outcome) {
  return outcome.has_subject() && !outcome.subject().has_random_direction();
}

// Among the outcomes of all values together, of which there are as many comparisons.
int64_t AdjustPValues(const std::vector<Outcomes*>& of_values) {
  std::vector<v1::StudyMeasure*> compared;
  std::vector<double> p_values;
  for (Outcomes* const outcomes : of_values) {
    for (v1::StudyOutcome& outcome : *outcomes) {
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
  return static_cast<int64_t>(compared.size());
}

// In each language by itself.
void AdjustAllPValues(int num_languages, v1::ValueStudyResult& result) {
  std::vector<Outcomes*> own;
  for (v1::StudiedValue& value : *result.mutable_values()) own.push_back(value.mutable_outcomes());
  result.set_num_comparisons(AdjustPValues(own));
  for (int l = 0; l < num_languages; ++l) {
    std::vector<v1::StudyTransfer*> transfers;
    std::vector<Outcomes*> outcomes;
    for (v1::StudiedValue& value : *result.mutable_values()) {
      if (value.transfers().empty()) continue;  // it has no vectors
      transfers.push_back(value.mutable_transfers(l));
      outcomes.push_back(transfers.back()->mutable_outcomes());
    }
    const int64_t num_comparisons = AdjustPValues(outcomes);
    for (v1::StudyTransfer* const one : transfers) one->set_num_comparisons(num_comparisons);
  }
}

// Of what is steered; `where` is behind their name.
void WarnOfGuard(const v1::StudiedValue& value, const Outcomes& outcomes, absl::string_view where,
                 v1::ValueStudyResult& result) {
  for (const v1::StudyOutcome& outcome : outcomes) {
    if (!IsCompared(outcome) || outcome.keeps_guard()) continue;
    result.add_warnings(absl::StrCat("`", value.value(), "` ", outcome.name(),
                                     " breaks the guard on test queries", where,
                                     ", though it kept it on development queries: its numbers say "
                                     "nothing of the value"));
  }
}

void AddWarnings(const v1::ValueStudySpec& spec, v1::ValueStudyResult& result) {
  const auto warn = [&](std::string what) { result.add_warnings(std::move(what)); };
  for (const v1::StudyLanguage& language : LanguagesOf(spec)) {
    const int count = language.test_queries_size();
    if (count == 0 || count >= kFewTestQueries) continue;
    warn(absl::StrCat(language.name(), language.name().empty() ? "" : ": ", count,
                      " test queries are too few to tell small effects: ", kFewTestQueries,
                      " or more are needed"));
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
    WarnOfGuard(value, value.outcomes(), "", result);
    for (const v1::StudyTransfer& transfer : value.transfers()) {
      WarnOfGuard(value, transfer.outcomes(), absl::StrCat(" or on those in ", transfer.language()),
                  result);
    }
  }
}

}  // namespace

absl::Status GatherOutcomes(const StudyGathering& of, SavedStudyState& state) {
  VS_ASSIGN_OR_RETURN(const v1::MeasureTextsRequest filled,
                      studies::WithDefaults(of.spec.measures(), of.model.architecture.vocabulary));
  v1::ValueStudyResult& result = *state.mutable_result();
  const int over_values = result.paper_size();
  for (v1::StudiedValue* const value : LiveValues(state)) {
    for (const v1::StudyLanguage& language : LanguagesOf(of.spec)) {
      VS_RETURN_IF_ERROR(GatherLanguage(of, language, filled, state, *value));
    }
  }
  // What is over all values comes last.
  auto& paper = *result.mutable_paper();
  std::rotate(paper.begin(), paper.begin() + over_values, paper.end());
  AdjustAllPValues(of.spec.languages_size(), result);
  AddWarnings(of.spec, result);
  return absl::OkStatus();
}

}  // namespace valuescope::kinds
