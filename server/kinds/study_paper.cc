#include "kinds/study_paper.h"

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "analysis/paired_differences.h"
#include "base/status_macros.h"
#include "kinds/study_measures.h"
#include "studies/confidence_interval.h"

namespace valuescope::kinds {
namespace {

// Of numbers of which some are differences of scores.
constexpr double kRounding = 1e-9;

using Quantities = google::protobuf::RepeatedPtrField<v1::PaperQuantity>;

// What the paper says, and on which side of what.
struct PaperClaim {
  const char* name;
  const char* description;
  const char* paper;
  double boundary = 0;
  bool below = false;
};

constexpr PaperClaim kQuestionnaire = {"questionnaire_prompted_over_intrinsic",
                                       "gain of the value's questionnaire score by steering along "
                                       "the prompted vector, less that along "
                                       "the intrinsic one",
                                       "prompted moves it more: +2.21 against +1.74"};
constexpr PaperClaim kDiversity = {
    "diversity_intrinsic_over_prompted",
    "Distinct-2 of answers steered along the intrinsic vector, less that along the prompted one",
    "intrinsic keeps answers more diverse: .362 against .342"};
constexpr PaperClaim kRefusals = {
    "refusals_prompted_over_intrinsic",
    "share of refusals when steered along the prompted vector, less that along the intrinsic one",
    "prompted follows instructions more and refuses less", 0, /*below=*/true};
constexpr PaperClaim kShared = {
    "shared_neurons_over_unique",
    "gain of the value's questionnaire score by scaling shared neurons, less that by the larger of "
    "the unique classes",
    "shared neurons move it more than unique ones"};
constexpr PaperClaim kRetained = {"retained_norm_fraction",
                                  "part of either vector's norm that is left after orthogonalising "
                                  "it on the other, the mean over "
                                  "the layers steered",
                                  "32 to 73 %: less than the whole", 1, /*below=*/true};
constexpr PaperClaim kMeanDelta = {
    "mean_delta_explained_variance",
    "share of the variance of what prompting adds that its mean over the values has, the mean over "
    "layers",
    "48 to 68 %", .48};
constexpr PaperClaim kCrossValue = {
    "cross_value_cosine", "mean cosine of what prompting adds for two values, the mean over layers",
    ".476: one channel"};
constexpr PaperClaim kCircumplex = {"circumplex_r_squared",
                                    "fit of the values to the circle, less the 95th percentile of "
                                    "the fit of random directions, the "
                                    "mean over layers",
                                    "R^2 of .6 to .7"};

v1::PaperQuantity Begin(const PaperClaim& claim, const std::string& value) {
  v1::PaperQuantity quantity;
  quantity.set_name(claim.name);
  quantity.set_description(claim.description);
  quantity.set_value(value);
  quantity.set_paper(claim.paper);
  quantity.set_boundary(claim.boundary);
  quantity.set_paper_below(claim.below);
  quantity.set_agreement(v1::PAPER_AGREEMENT_NOT_MEASURED);
  return quantity;
}

v1::PaperQuantity NotMeasured(const PaperClaim& claim, const std::string& value, std::string why) {
  v1::PaperQuantity quantity = Begin(claim, value);
  quantity.set_note(std::move(why));
  return quantity;
}

v1::PaperQuantity Found(const PaperClaim& claim, const std::string& value, double found,
                        const std::optional<analysis::ConfidenceInterval>& interval,
                        std::string note) {
  v1::PaperQuantity quantity = Begin(claim, value);
  quantity.set_found(found);
  quantity.set_note(std::move(note));
  quantity.set_agreement(v1::PAPER_AGREEMENT_UNDECIDED);
  if (!interval) return quantity;
  *quantity.mutable_interval() = studies::IntervalToProto(*interval);
  const bool above = interval->lower > claim.boundary + kRounding;
  const bool below = interval->upper < claim.boundary - kRounding;
  if (above || below) {
    quantity.set_agreement(above == !claim.below ? v1::PAPER_AGREEMENT_SUPPORTED
                                                 : v1::PAPER_AGREEMENT_CONTRADICTED);
  }
  return quantity;
}

const v1::StudyOutcome* OutcomeOf(const v1::StudiedValue& value, const std::string& name) {
  for (const v1::StudyOutcome& outcome : value.outcomes()) {
    if (outcome.name() == name) return &outcome;
  }
  return nullptr;
}

// Why outcomes cannot be told of; empty where they can.
std::string WhyNot(const v1::StudiedValue& value, std::initializer_list<const char*> names) {
  for (const char* const name : names) {
    const v1::StudyOutcome* const outcome = OutcomeOf(value, name);
    if (outcome == nullptr) return absl::StrCat("`", name, "` was not tested");
    if (!outcome->keeps_guard()) return absl::StrCat("`", name, "` broke the guard");
  }
  return "";
}

using Questionnaires = std::map<std::string, v1::QuestionnaireResult>;

// Of the first outcome less the second.
absl::StatusOr<v1::PaperQuantity> QuestionnaireOf(
    const StudyGathering& of, const Questionnaires& results, const PaperClaim& claim,
    const std::string& first_name, const std::string& second_name, const v1::StudiedValue& value) {
  const auto first = results.find(first_name), second = results.find(second_name);
  if (first == results.end() || second == results.end()) {
    return NotMeasured(claim, value.value(), "no questionnaire was asked");
  }
  const std::vector<analysis::PairedCluster> items =
      ScoresOf(first->second, second->second, value.value());
  const std::optional<double> difference = analysis::MeanDifference(items);
  if (!difference) {
    return NotMeasured(claim, value.value(), "the questionnaire has no item of the value");
  }
  VS_ASSIGN_OR_RETURN(const auto interval, BootstrapOf(of, items));
  return Found(
      claim, value.value(), *difference, interval,
      absl::StrCat("`", first_name, "` less `", second_name, "` over ", items.size(), " items"));
}

// Shared neurons against the class of unique ones that moves the score more.
absl::StatusOr<v1::PaperQuantity> NeuronsOf(const StudyGathering& of, const Questionnaires& results,
                                            const v1::StudiedValue& value) {
  if (const std::string why = WhyNot(value, {"neurons_shared"}); !why.empty()) {
    return NotMeasured(kShared, value.value(), why);
  }
  std::string best;
  double most = 0;
  for (const char* const name : {"neurons_intrinsic", "neurons_prompted"}) {
    const v1::StudyOutcome* const outcome = OutcomeOf(value, name);
    if (outcome == nullptr || !outcome->keeps_guard()) continue;
    const v1::StudyMeasure* const score = MeasureOf(*outcome, "questionnaire");
    if (score == nullptr || (!best.empty() && score->value() <= most)) continue;
    best = name;
    most = score->value();
  }
  if (best.empty()) return NotMeasured(kShared, value.value(), "no unique neurons were measured");
  return QuestionnaireOf(of, results, kShared, "neurons_shared", best, value);
}

absl::StatusOr<v1::PaperQuantity> DiversityOf(const ScoredAnswers& answers, int64_t vocabulary,
                                              const v1::StudiedValue& value) {
  VS_ASSIGN_OR_RETURN(const analysis::DiversityDifference difference,
                      analysis::JackknifeDiversity(answers.Texts("intrinsic"),
                                                   answers.Texts("prompted"), /*n=*/2, vocabulary));
  if (!difference.distinct) {
    return NotMeasured(kDiversity, value.value(), "the answers have no two tokens");
  }
  return Found(kDiversity, value.value(), *difference.distinct, difference.distinct_interval,
               absl::StrCat("over ", answers.queries().size(), " test queries"));
}

absl::StatusOr<v1::PaperQuantity> RefusalsOf(const StudyGathering& of, const ScoredAnswers& answers,
                                             const v1::StudiedValue& value) {
  if (of.spec.measures().refusal_phrases().empty()) {
    return NotMeasured(kRefusals, value.value(), "no refusals were looked for");
  }
  const std::vector<analysis::PairedCluster> refusals = answers.Refusals("prompted", "intrinsic");
  const std::optional<double> difference = analysis::MeanDifference(refusals);
  if (!difference) return NotMeasured(kRefusals, value.value(), "no answer is coherent");
  VS_ASSIGN_OR_RETURN(const auto interval, BootstrapOf(of, refusals));
  return Found(kRefusals, value.value(), *difference, interval,
               absl::StrCat("over ", refusals.size(),
                            " test queries; queries that nobody would refuse tell little"));
}

v1::PaperQuantity RetainedOf(const StudyGathering& of, const v1::StudiedValue& value) {
  const auto& steered = of.spec.steered_layers().list().layers();
  double sum = 0;
  int count = 0;
  for (const v1::LayerDecomposition& layer : value.decomposition().layers()) {
    if (std::find(steered.begin(), steered.end(), layer.layer()) == steered.end()) continue;
    sum += layer.retained_norm_fraction();
    ++count;
  }
  return Found(kRetained, value.value(), count > 0 ? sum / count : 0, std::nullopt,
               "without an interval: noise in the vectors enlarges it, see the cosines divided by "
               "their reliability");
}

template <typename Layers, typename Number>
double MeanOver(const Layers& layers, Number number) {
  double sum = 0;
  for (const auto& layer : layers) sum += number(layer);
  return sum / static_cast<double>(layers.size());
}

// The null of random directions is the same in all layers.
v1::PaperQuantity CircumplexOf(const std::optional<analysis::ConfidenceInterval>& r_squared,
                               const v1::ValueStudyResult& result) {
  const auto& layers = result.circumplexes();
  if (layers.empty()) return NotMeasured(kCircumplex, "", "the circumplex was not asked for");
  const double null = layers[0].null_95th_percentile();
  const auto [lowest, highest] =
      std::minmax_element(layers.begin(), layers.end(), [](const auto& a, const auto& b) {
        return a.permutation_p_value() < b.permutation_p_value();
      });
  std::optional<analysis::ConfidenceInterval> interval = r_squared;
  if (interval) {
    interval->lower -= null;
    interval->upper -= null;
  }
  return Found(
      kCircumplex, "",
      MeanOver(layers, [](const v1::Circumplex& one) { return one.r_squared(); }) - null, interval,
      absl::StrCat("the mean over ", layers.size(), " layers; p by permutation is ",
                   lowest->permutation_p_value(), " to ", highest->permutation_p_value(), "; ",
                   interval ? "the interval is jackknifed over the values"
                            : "without an interval, which needs five values or more, and "
                              "any four of them to have a circumplex"));
}

}  // namespace

absl::Status AddPaperQuantities(
    const StudyGathering& of, const ScoredAnswers& answers,
    const std::map<std::string, v1::QuestionnaireResult>& questionnaires, int64_t vocabulary,
    const v1::StudiedValue& value, Quantities& quantities) {
  if (const std::string why = WhyNot(value, {"intrinsic", "prompted"}); !why.empty()) {
    for (const PaperClaim& claim : {kQuestionnaire, kDiversity, kRefusals}) {
      *quantities.Add() = NotMeasured(claim, value.value(), why);
    }
  } else {
    VS_ASSIGN_OR_RETURN(*quantities.Add(), QuestionnaireOf(of, questionnaires, kQuestionnaire,
                                                           "prompted", "intrinsic", value));
    VS_ASSIGN_OR_RETURN(*quantities.Add(), DiversityOf(answers, vocabulary, value));
    VS_ASSIGN_OR_RETURN(*quantities.Add(), RefusalsOf(of, answers, value));
  }
  VS_ASSIGN_OR_RETURN(*quantities.Add(), NeuronsOf(of, questionnaires, value));
  *quantities.Add() = RetainedOf(of, value);
  return absl::OkStatus();
}

void AddPaperQuantitiesOverValues(const IntervalsOverValues& intervals,
                                  v1::ValueStudyResult& result) {
  Quantities& quantities = *result.mutable_paper();
  const auto note = [&](int layers, const auto& interval) {
    return absl::StrCat("the mean over ", layers, " layers; ",
                        interval ? "the interval is jackknifed over the values, as a sample of more"
                                 : "without an interval, which needs three values or more");
  };
  const auto& deltas = result.mean_deltas();
  if (deltas.empty()) {
    for (const PaperClaim& claim : {kMeanDelta, kCrossValue}) {
      *quantities.Add() = NotMeasured(claim, "", "needs two values or more");
    }
  } else {
    *quantities.Add() =
        Found(kMeanDelta, "",
              MeanOver(deltas, [](const v1::MeanDelta& one) { return one.explained_variance(); }),
              intervals.explained_variance, note(deltas.size(), intervals.explained_variance));
    *quantities.Add() =
        Found(kCrossValue, "",
              MeanOver(deltas, [](const v1::MeanDelta& one) { return one.mean_pairwise_cosine(); }),
              intervals.mean_pairwise_cosine, note(deltas.size(), intervals.mean_pairwise_cosine));
  }
  *quantities.Add() = CircumplexOf(intervals.r_squared, result);
}

}  // namespace valuescope::kinds
