// The kind "compare_responses": which of two responses a served model prefers, asked in both orders
// (services/rubrics.h), so that a liking for a place counts for neither. A unit is a pair. Partial:
// SavedPreferences.
//
// Left by a job: "summary", JSON with the preferences and the provenance, nothing of time or place.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "analysis/statistics.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "kinds/evaluation_request.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "kinds/texts_work.h"
#include "nlohmann/json.hpp"
#include "services/idempotency.h"
#include "services/rubrics.h"
#include "studies/confidence_interval.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;
using Request = v1::CompareResponsesRequest;

constexpr char kName[] = "compare_responses";
constexpr int64_t kPairsPerChunk = 16;
constexpr int64_t kPairsPerShard = 32 * kPairsPerChunk;

// --- The outcome ---------------------------------------------------------------------------------

// Everything but what they were made of and what that cost.
v1::CompareResponsesResponse Summarised(const SavedPreferences& preferences) {
  v1::CompareResponsesResponse response;
  double wins = 0, probability = 0, mass = 0;
  int64_t agreeing = 0;
  for (const SavedPreference& one : preferences.preferences()) {
    v1::PairPreference& preference = *response.add_preferences();
    preference.set_probability((one.as_a() + one.as_b()) / 2);
    preference.set_order_spread((one.as_a() - one.as_b()) / 2);
    preference.set_label_mass(one.mass());
    wins += preference.probability() > .5 ? 1 : preference.probability() == .5 ? .5 : 0;
    agreeing += (one.as_a() > .5 && one.as_b() > .5) || (one.as_a() < .5 && one.as_b() < .5);
    probability += preference.probability();
    mass += one.mass();
  }
  const auto count = static_cast<double>(preferences.preferences_size());
  response.set_win_rate(wins / count);
  *response.mutable_win_rate_interval() =
      studies::IntervalToProto(analysis::WilsonInterval(wins, count));
  response.set_mean_probability(probability / count);
  response.set_order_agreement(static_cast<double>(agreeing) / count);
  response.set_label_mass(mass / count);
  if (response.label_mass() < services::kLeastAnswerMass) {
    response.add_warnings(absl::StrFormat(
        "the judge answers A or B with a probability of %.2g on average: it says something else, "
        "and its preferences mean little",
        response.label_mass()));
  }
  return response;
}

class PreferencesOutcome : public jobs::Outcome {
 public:
  PreferencesOutcome(const SavedPreferences& preferences, v1::Provenance provenance)
      : result(Summarised(preferences)), provenance_(std::move(provenance)) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    json summary = Described();
    summary["preferences"] = studies::ListToJson(result.preferences());
    std::vector<jobs::ArtifactDraft> artifacts;
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                        MakeSummary(blobs, std::move(summary), provenance_));
    return artifacts;
  }
  std::string Summary(const std::vector<store::Resource>&) const override {
    return studies::DumpJson(Described());
  }

  const v1::CompareResponsesResponse result;  // without usage and digests

 private:
  json Described() const {
    return {
        {"format_version", kSummaryVersion},
        {"num_pairs", result.preferences_size()},
        {"win_rate", result.win_rate()},
        {"win_rate_interval", studies::MessageToJson(result.win_rate_interval())},
        {"mean_probability", result.mean_probability()},
        {"order_agreement", result.order_agreement()},
        {"label_mass", result.label_mass()},
        {"warnings", std::vector<std::string>(result.warnings().begin(), result.warnings().end())}};
  }

  const v1::Provenance provenance_;
};

// --- The work ------------------------------------------------------------------------------------

class ComparingWork : public TextsWork<SavedPreferences, &SavedPreferences::preferences_size> {
 public:
  ComparingWork(ResponseInputs inputs, services::Rubric rubric)
      : TextsWork(std::move(inputs), kPairsPerChunk), rubric_(std::move(rubric)) {}

 protected:
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        Units& sums) override {
    std::vector<services::Rubric::Filling> fillings;  // two a pair
    for (int64_t unit = units.first; unit < units.end; ++unit) {
      const v1::ResponsePair& pair = text(unit).pair();
      fillings.push_back({pair.query(), pair.first(), pair.second()});
      fillings.push_back({pair.query(), pair.second(), pair.first()});
    }
    VS_ASSIGN_OR_RETURN(const std::vector<services::LabelReading> readings,
                        rubric_.Ask(fillings, JudgedFor(cancellation), usage_));
    for (size_t i = 0; i < readings.size(); i += 2) {
      SavedPreference& preference = *sums.saved.add_preferences();
      preference.set_as_a(readings[i].probabilities[0]);
      preference.set_as_b(readings[i + 1].probabilities[1]);
      preference.set_mass((readings[i].mass + readings[i + 1].mass) / 2);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(const Units& whole,
                                                            const Cancellation&) override {
    return std::make_unique<PreferencesOutcome>(whole.saved, inputs_.record.provenance());
  }

 private:
  const services::Rubric rubric_;
};

// --- The request ---------------------------------------------------------------------------------

class CompareResponsesKind
    : public TextsKind<Request, v1::CompareResponsesResponse, ComparingWork, PreferencesOutcome> {
 public:
  explicit CompareResponsesKind(const Sources& sources)
      : TextsKind(sources, SavedWork::kCompareResponses) {}

  absl::string_view Name() const override { return kName; }
  absl::string_view Unit() const override { return "pairs"; }

 protected:
  absl::StatusOr<std::unique_ptr<jobs::Work>> OpenWork(ResponseInputs inputs) const override {
    VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
    const SavedComparison& of = inputs.record.compare_responses();
    VS_ASSIGN_OR_RETURN(services::Rubric rubric,
                        RubricOf(of.rubric(), model, absl::FromUnixSeconds(of.judge_time())));
    return std::make_unique<ComparingWork>(std::move(inputs), std::move(rubric));
  }

  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_ASSIGN_OR_RETURN(const auto model,
                        services::ModelOfName("model", request.model(), *sources_.models));
    const absl::Time now = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
    VS_ASSIGN_OR_RETURN(services::Rubric rubric, RubricOf(request.rubric(), model, now));
    VS_ASSIGN_OR_RETURN(SavedTexts texts, TextsOf(request, context, options, resolved.used));
    VS_ASSIGN_OR_RETURN(const int64_t tokens, MostTokens(rubric, texts));
    ResponseInputs inputs =
        InputsOfTexts(std::move(texts), kPairsPerShard,
                      RecordOf(*model, request.display_name(), options), model, context, sources_);
    SavedWork& record = inputs.record;
    record.mutable_compare_responses()->set_rubric(request.rubric());
    record.mutable_compare_responses()->set_judge_time(absl::ToUnixSeconds(now));
    *record.mutable_provenance() = ProvenanceOfComparison(request, *model, rubric, resolved.used);
    if (!options.at_once) VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    const int64_t count = record.num_responses();
    constexpr int64_t kPreferenceBytes = 128;
    resolved.estimate = EstimateOf(*model, 2 * count * tokens, 2 * count, count * kPreferenceBytes);
    resolved.needs = inputs.needs();
    resolved.work = std::make_unique<ComparingWork>(std::move(inputs), std::move(rubric));
    return resolved;
  }

 private:
  static absl::StatusOr<services::Rubric> RubricOf(const std::string& question,
                                                   std::shared_ptr<const engine::ServedModel> model,
                                                   absl::Time now) {
    VS_ASSIGN_OR_RETURN(services::LabelTokens labels,
                        services::LabelTokens::Of({{"A"}, {"B"}}, *model));
    return services::Rubric::Create("rubric", question, {"{query}", "{a}", "{b}"},
                                    std::move(labels), std::move(model), now);
  }

  absl::StatusOr<SavedTexts> TextsOf(const Request& request, const rpc::CallContext& context,
                                     const services::ResolveOptions& options,
                                     services::UsedResources& used) const {
    SavedTexts texts;
    Sha256 digest;
    const auto add = [&](const GivenPlace& place, const v1::ResponsePair& pair) {
      if (options.at_once && texts.texts_size() == kMostResponsesAtOnce) {
        return NeverFits(
            "USE_A_JOB",
            absl::StrCat("there are more pairs than one call takes, which "
                         "is ",
                         kMostResponsesAtOnce, "; create a job with the same request"));
      }
      if (pair.query().empty()) return place.Invalid("query", "must not be empty");
      *texts.add_texts()->mutable_pair() = pair;
      digest.Update(Sha256Hex(services::DeterministicBytes(pair)));
      return context.Hold(static_cast<int64_t>(pair.SpaceUsedLong()));
    };
    VS_RETURN_IF_ERROR(ForEachItem<v1::ResponsePair>("pairs", request.pairs(), request.artifact(),
                                                     {}, context, sources_, used, add));
    used["pairs"] = digest.HexDigest();
    return texts;
  }

  // Of the judge's, for the longest of the pairs.
  static absl::StatusOr<int64_t> MostTokens(const services::Rubric& rubric,
                                            const SavedTexts& texts) {
    const auto bytes = [](const SavedText& text) {
      return text.pair().query().size() + text.pair().first().size() + text.pair().second().size();
    };
    const auto longest =
        std::max_element(texts.texts().begin(), texts.texts().end(),
                         [&](const auto& a, const auto& b) { return bytes(a) < bytes(b); });
    const v1::ResponsePair& pair = longest->pair();
    return rubric.MostTokens({pair.query(), pair.first(), pair.second()}, /*more=*/0);
  }

  static v1::Provenance ProvenanceOfComparison(const Request& request,
                                               const engine::ServedModel& model,
                                               const services::Rubric& rubric,
                                               const services::UsedResources& used) {
    v1::Provenance provenance = studies::ProvenanceOf(model, /*rendered_chat=*/true);
    provenance.set_judge(rubric.Description());
    *provenance.mutable_inputs() = services::InputsOf(used, request.artifact());
    provenance.set_options(
        studies::RecordOfRequest(request, {"model", "pairs", "artifact", "display_name"}));
    return provenance;
  }
};

}  // namespace

std::unique_ptr<services::Kind> CompareResponses(const Sources& sources) {
  return std::make_unique<CompareResponsesKind>(sources);
}

}  // namespace valuescope::kinds
