#include "kinds/sweep_work.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "kinds/generated_responses.h"
#include "kinds/sweep_looks.h"
#include "services/data_set_lines.h"
#include "services/idempotency.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "studies/steering_sweep.h"

namespace valuescope::kinds {
namespace {

constexpr int64_t kUnitsPerChunk = 32;
constexpr char kBaseline[] = "baseline";
constexpr int64_t kNoPoint = -2, kBaselinePoint = -1;

bool IsNeurons(const SavedSweepSubject& subject) { return subject.vector().empty(); }

// Each point has its own.
SavedWork WithoutInterventions(SavedWork work) {
  if (work.has_generation()) {
    work.mutable_generation()->mutable_conditions(0)->clear_interventions();
  } else {
    work.mutable_evaluation()->mutable_conditions(0)->clear_interventions();
  }
  return work;
}

// Measures that cannot be told.
google::protobuf::RepeatedPtrField<v1::SweepMeasure> WithoutValues(
    google::protobuf::RepeatedPtrField<v1::SweepMeasure> measures) {
  for (v1::SweepMeasure& measure : measures) {
    measure.clear_value();
    measure.clear_lower();
    measure.clear_upper();
  }
  return measures;
}

}  // namespace

std::string SweepSums::Serialize() const { return services::DeterministicBytes(shard); }

// --- The outcome ---------------------------------------------------------------------------------

nlohmann::json SweepOutcome::Described() const {
  v1::SteeringSweepResult without = result;
  without.clear_provenance();
  nlohmann::json described = studies::MessageToJson(without);
  described["format_version"] = kSummaryVersion;
  return described;
}

absl::StatusOr<std::vector<jobs::ArtifactDraft>> SweepOutcome::Artifacts(
    store::BlobStore& blobs) const {
  std::vector<jobs::ArtifactDraft> artifacts;
  VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                      MakeSummary(blobs, Described(), result.provenance()));
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobWriter> writer, blobs.NewWriter());
  for (const v1::SweepPoint& point : points_) {
    VS_RETURN_IF_ERROR(writer->Append(absl::StrCat(studies::MessageToJson(point).dump(), "\n")));
  }
  VS_ASSIGN_OR_RETURN(store::StoredBlob points, writer->Finish());
  artifacts.push_back(ArtifactOf(std::move(points), "points", "points.jsonl",
                                 services::kDataSetMediaType, result.provenance()));
  if (!lines_) return artifacts;
  artifacts.push_back(ArtifactOf(*lines_, "responses", "responses.jsonl",
                                 services::kDataSetMediaType, result.provenance()));
  return artifacts;
}

std::string SweepOutcome::Summary(const std::vector<store::Resource>&) const {
  return studies::DumpJson(Described());
}

// --- Shards --------------------------------------------------------------------------------------

SweepWork::SweepWork(const Sources& sources, const SweepKinds& kinds, std::string tenant,
                     SavedWork record, const engine::ServedModel& model,
                     std::vector<std::unique_ptr<jobs::Work>> drafts)
    : sources_(sources),
      kinds_(kinds),
      tenant_(std::move(tenant)),
      record_(std::move(record)),
      grid_(sweep(), model.architecture.hidden),
      intermediate_(model.architecture.intermediate),
      drafts_(std::move(drafts)) {}

int64_t SweepWork::num_looks() const {
  const auto& subjects = sweep().subjects();
  if (sweep().num_random() == 0 || std::none_of(subjects.begin(), subjects.end(), IsNeurons)) {
    return 0;
  }
  for (const SavedSweepEvaluation& evaluation : sweep().evaluations()) {
    if (evaluation.work().has_generate_responses()) return evaluation.work().num_responses();
  }
  return 0;
}

int64_t SweepWork::units_per_point() const { return UnitsOf(StagesOf(sweep())); }

jobs::Extent SweepWork::extent() const {
  const int64_t per_point = units_per_point(), looks = num_looks();
  jobs::Extent extent{.units = looks + per_point * (1 + grid_.size()),
                      .units_per_shard = per_point,
                      .units_per_chunk = std::min(kUnitsPerChunk, per_point)};
  if (looks == 0) return extent;
  extent.preparing = {.units = per_point + looks,
                      .units_per_shard = per_point + looks,
                      .units_per_chunk = extent.units_per_chunk};
  return extent;
}

absl::StatusOr<jobs::SavedWork> SweepWork::Save(store::BlobStore& blobs) const {
  SavedWork record = record_;
  jobs::SavedWork saved;
  for (size_t e = 0; e < drafts_.size(); ++e) {
    VS_ASSIGN_OR_RETURN(const jobs::SavedWork draft, drafts_[e]->Save(blobs));
    SavedWork& work =
        *record.mutable_steering_sweep()->mutable_evaluations(static_cast<int>(e))->mutable_work();
    VS_ASSIGN_OR_RETURN(work, ParseSavedWork(draft.spec));
    work = WithoutInterventions(std::move(work));
    saved.blobs.insert(saved.blobs.end(), draft.blobs.begin(), draft.blobs.end());
  }
  saved.spec = services::DeterministicBytes(record);
  return saved;
}

int64_t SweepWork::BytesOf(int64_t units) const {
  const int64_t points = std::max<int64_t>(1, units / units_per_point());
  // Two sums and what is serialised of them.
  const int64_t looks =
      num_looks() == 0 ? 0 : sweep().layers_size() * intermediate_ * int64_t{4 * sizeof(double)};
  return sweep().bytes_per_point() + looks + points * sweep().bytes_of_point();
}

absl::StatusOr<SweepSums> SweepWork::BeginSums(int64_t units) {
  SweepSums sums;
  VS_ASSIGN_OR_RETURN(const auto model, ModelOfRecord(record_, *sources_.models));
  VS_ASSIGN_OR_RETURN(sums.memory, model->engine->KeepCaptures(BytesOf(units)));
  return sums;
}

absl::StatusOr<SweepSums> SweepWork::ParseSums(absl::string_view bytes, int64_t, int64_t units) {
  VS_ASSIGN_OR_RETURN(SweepSums sums, BeginSums(units));
  if (sums.shard.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return sums;
  return jobs::PartialDamaged();
}

absl::Status SweepWork::PrepareWith(const SweepSums& first) {
  VS_ASSIGN_OR_RETURN(matching_, MatchingOf(sweep(), first.shard.looks(), intermediate_));
  return absl::OkStatus();
}

absl::StatusOr<SweepPointRun*> SweepWork::Opened(int64_t point) {
  if (opened_ == point) return run_.get();
  opened_ = kNoPoint;
  const bool baseline = point == kBaselinePoint;
  VS_ASSIGN_OR_RETURN(
      run_, SweepPointRun::Open(
                context(), baseline ? kBaseline : grid_.PointAt(point).name(),
                baseline ? Interventions()
                         : grid_.InterventionsAt(point, matching_ ? &*matching_ : nullptr)));
  opened_ = point;
  return run_.get();
}

absl::Status SweepWork::AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                                 SweepSums& sums) {
  const int64_t per_point = units_per_point();
  const int64_t first_of_grid = per_point + num_looks();
  int64_t point = kBaselinePoint, begin = 0;
  if (units.first >= first_of_grid) {
    point = (units.first - first_of_grid) / per_point;
    begin = first_of_grid + point * per_point;
  }
  const jobs::UnitRange here{units.first - begin, units.end - begin};
  if (here.first < per_point) {
    VS_RETURN_IF_ERROR(
        Measure(point, {here.first, std::min(here.end, per_point)}, cancellation, sums.shard));
  }
  if (here.end <= per_point) return absl::OkStatus();
  return Look({std::max(here.first, per_point) - per_point, here.end - per_point}, cancellation,
              sums.shard);
}

absl::Status SweepWork::Measure(int64_t point, const jobs::UnitRange& units,
                                const Cancellation& cancellation, SavedSweepShard& shard) {
  if (shard.has_point()) return absl::OkStatus();  // the units before went too far
  VS_ASSIGN_OR_RETURN(SweepPointRun* const run, Opened(point));
  const absl::Status status = run->Run(units, cancellation, shard);
  if (point != kBaselinePoint && DetailsOf(status).reason == "LOGITS_NOT_FINITE") {
    SetNotFinite(point, shard);
    return absl::OkStatus();
  }
  VS_RETURN_IF_ERROR(status);
  if (units.end < units_per_point()) return absl::OkStatus();
  v1::SweepPoint& measured = *shard.mutable_point();
  if (point == kBaselinePoint) {
    measured.set_name(kBaseline);
  } else {
    measured = grid_.PointAt(point);
  }
  return run->Finish(cancellation, shard);
}

// One point of a grid that goes too far is a finding, and no reason to lose the others: it has no
// measures and no responses, and is not run any further.
void SweepWork::SetNotFinite(int64_t point, SavedSweepShard& shard) const {
  *shard.mutable_point() = grid_.PointAt(point);
  shard.clear_stages();
  for (const SavedSweepEvaluation& evaluation : sweep().evaluations()) {
    if (evaluation.work().has_generate_responses()) shard.add_responses();
  }
}

absl::Status SweepWork::Look(const jobs::UnitRange& units, const Cancellation& cancellation,
                             SavedSweepShard& shard) {
  VS_RETURN_IF_ERROR(OpenQueries());
  if (shard.responses().empty()) return jobs::PartialDamaged();
  return AddSweepLooks(queries_.front(), sweep(), shard.responses(0), units, cancellation,
                       *shard.mutable_looks());
}

absl::Status SweepWork::OpenQueries() {
  if (!queries_.empty()) return absl::OkStatus();
  for (int e = 0; e < sweep().evaluations_size(); ++e) {
    if (!sweep().evaluations(e).work().has_generate_responses()) continue;
    VS_ASSIGN_OR_RETURN(queries_.emplace_back(),
                        OpenResponses(context(), e, kBaseline, Interventions()));
  }
  return absl::OkStatus();
}

// --- All of them ---------------------------------------------------------------------------------

absl::Status SweepWork::AddShard(const SweepSums& shard, SweepSums& whole) {
  if (!shard.shard.has_point()) return jobs::PartialDamaged();
  const v1::SweepPoint& point = shard.shard.point();
  whole.points.push_back(point);
  if (point.name() == kBaseline) {
    whole.shard.set_looks(shard.shard.looks());
    whole.warnings.assign(shard.shard.warnings().begin(), shard.shard.warnings().end());
  } else if (point.measures().empty()) {
    if (whole.num_not_finite++ == 0) whole.first_not_finite = point.name();
    *whole.points.back().mutable_measures() = WithoutValues(whole.points.front().measures());
  } else if (!shard.shard.warnings().empty()) {
    if (whole.num_with_warnings++ == 0) whole.first_with_warnings = point.name();
  }
  return AddLines(shard.shard, whole);
}

absl::Status SweepWork::AddLines(const SavedSweepShard& shard, SweepSums& whole) {
  if (shard.responses().empty()) return absl::OkStatus();
  VS_RETURN_IF_ERROR(OpenQueries());
  if (shard.responses_size() != static_cast<int>(queries_.size())) return jobs::PartialDamaged();
  if (whole.lines == nullptr) {
    VS_ASSIGN_OR_RETURN(whole.lines, sources_.blobs->NewWriter());
  }
  int i = 0;
  for (int e = 0; e < sweep().evaluations_size(); ++e) {
    if (!sweep().evaluations(e).work().has_generate_responses()) continue;
    const Generation& generation = *queries_[static_cast<size_t>(i)].generation;
    const SavedResponses& responses = shard.responses(i++);
    const std::string condition = ConditionAt(shard.point().name(), sweep(), e);
    std::string text;
    for (int unit = 0; unit < responses.responses_size(); ++unit) {
      v1::LabelledResponse line =
          LineOf(generation, UnitOf(generation.how, unit), responses.responses(unit));
      line.set_condition(condition);
      text += JsonLineOf(line);
    }
    VS_RETURN_IF_ERROR(whole.lines->Append(text));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<jobs::Outcome>> SweepWork::FinishSums(
    const SweepSums& whole, const Cancellation& cancellation) {
  if (static_cast<int64_t>(whole.points.size()) != 1 + grid_.size()) {
    return jobs::PartialDamaged();
  }
  std::vector<v1::SweepPoint> points = whole.points;
  v1::SteeringSweepResult result;
  for (v1::SweepPoint& point : points) {
    VS_RETURN_IF_ERROR(CheckGoesOn(cancellation));
    studies::ApplyGuard(sweep().guard(), whole.points.front(), point);
    if (&point != &points.front()) result.set_num_passing(result.num_passing() + point.passes());
  }
  *result.mutable_baseline() = points.front();
  result.set_num_points(grid_.size());
  std::vector<std::string> names;
  for (const SavedSweepSubject& subject : sweep().subjects()) names.push_back(subject.name());
  const auto selected = studies::SelectPoints(sweep().objective(), names, sweep().num_random(),
                                              std::span<const v1::SweepPoint>(points).subspan(1));
  for (int s = 0; s < sweep().subjects_size(); ++s) {
    v1::SweepSelection& one = *result.add_selected() = selected[static_cast<size_t>(s)];
    if (matching_ && IsNeurons(sweep().subjects(s))) {
      one.set_num_unmatched(grid_.NumUnmatched(s, *matching_));
      if (one.num_unmatched() > 0) {
        result.add_warnings(absl::StrCat(
            "of the neurons of `", one.subject(), "` ", one.num_unmatched(),
            " have too few others like them: random sets have others, and p_value says less"));
      }
    }
    if (!one.has_point()) {
      result.add_warnings(absl::StrCat("no point of `", one.subject(), "` passes the guard"));
    }
  }
  result.mutable_warnings()->MergeFrom(sweep().warnings());
  for (const std::string& warning : whole.warnings) {
    result.add_warnings(absl::StrCat(kBaseline, ": ", warning));
  }
  if (whole.num_with_warnings > 0) {
    result.add_warnings(absl::StrCat("evaluations warn at ", whole.num_with_warnings, " of ",
                                     grid_.size(), " points, the first of which is `",
                                     whole.first_with_warnings, "`"));
  }
  if (whole.num_not_finite > 0) {
    result.add_warnings(absl::StrCat("nothing is measured at ", whole.num_not_finite, " of ",
                                     grid_.size(), " points, the first of which is `",
                                     whole.first_not_finite,
                                     "`: the model's logits are not finite numbers there"));
  }
  *result.mutable_provenance() = WholeProvenance();
  std::optional<store::StoredBlob> lines;
  if (whole.lines != nullptr) {
    VS_ASSIGN_OR_RETURN(lines, whole.lines->Finish());
  }
  return std::make_unique<SweepOutcome>(std::move(result), std::move(points), std::move(lines));
}

// With what the evaluations alone tell: who judges, and what they ask.
v1::Provenance SweepWork::WholeProvenance() const {
  v1::Provenance provenance = record_.provenance();
  std::vector<std::string> judges;
  for (const SavedSweepEvaluation& evaluation : sweep().evaluations()) {
    const v1::Provenance& of = evaluation.work().provenance();
    if (!of.judge().empty()) judges.push_back(of.judge());
    for (const v1::ResourceDigest& input : of.inputs()) {
      if (absl::StrContains(input.name(), '/')) continue;  // a resource, which the sweep has
      v1::ResourceDigest& digest = *provenance.add_inputs();
      digest.set_name(absl::StrCat(evaluation.name(), ": ", input.name()));
      digest.set_digest(input.digest());
    }
    provenance.mutable_seeds()->MergeFrom(of.seeds());
  }
  std::sort(judges.begin(), judges.end());
  judges.erase(std::unique(judges.begin(), judges.end()), judges.end());
  provenance.set_judge(absl::StrJoin(judges, "; "));
  return provenance;
}

}  // namespace valuescope::kinds
