// What ways to answer came to, in the study's language or another: measured by the judge that
// scores, by what the texts are like, by questionnaire and choices, and held against the baseline
// with what is known of the difference (analysis/paired_differences.h).
#ifndef VALUESCOPE_KINDS_STUDY_MEASURES_H_
#define VALUESCOPE_KINDS_STUDY_MEASURES_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "analysis/paired_differences.h"
#include "analysis/statistics.h"
#include "kinds/study_answers.h"
#include "kinds/study_gathering.h"
#include "kinds/study_points.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/studies.pb.h"

namespace valuescope::kinds {

// What was measured of one value's ways, by their names.
struct MeasuredWays {
  std::optional<ScoredAnswers> answers;  // where there are queries
  std::map<std::string, v1::TextMeasures> texts;
  std::map<std::string, v1::QuestionnaireResult> questionnaires;
  std::map<std::string, v1::ChoicesResult> choices;
};

// From "score/VALUE", "measure/VALUE", "ask/VALUE" and "choose/VALUE", or those of the language.
absl::StatusOr<MeasuredWays> ReadWays(const StudyGathering& gathering, const std::string& value,
                                      const v1::StudyLanguage& language);

// What is told of ways to answer. `filled` is how texts were measured, with its defaults.
struct ToldWays {
  std::vector<v1::StudyOutcome> outcomes;  // in the order of the ways
  std::vector<v1::StudyAnswers> answers;   // some, side by side
};
absl::StatusOr<ToldWays> TellWays(const StudyGathering& gathering,
                                  const std::vector<TestedWay>& ways, const MeasuredWays& measured,
                                  const v1::MeasureTextsRequest& filled, const std::string& value);

// Null where it was not measured.
const v1::StudyMeasure* MeasureOf(const v1::StudyOutcome& outcome, const std::string& name);

// The value's score less the mean over all items, item by item; both results are of the same items.
std::vector<analysis::PairedCluster> ScoresOf(const v1::QuestionnaireResult& first,
                                              const v1::QuestionnaireResult& second,
                                              const std::string& value);

// Of their difference, as the study asks for it.
absl::StatusOr<std::optional<analysis::ConfidenceInterval>> BootstrapOf(
    const StudyGathering& gathering, const std::vector<analysis::PairedCluster>& clusters);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_MEASURES_H_
