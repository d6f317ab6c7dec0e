#include "kinds/study_training.h"

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "kinds/generated_responses.h"
#include "kinds/response_work.h"
#include "services/data_set_lines.h"
#include "services/value_labels.h"
#include "store/blob_store.h"
#include "store/store.h"
#include "studies/provenance.h"

namespace valuescope::kinds {
namespace {

constexpr char kRole[] = "responses";
// ExtractVectorsRequest.judge.
constexpr size_t kMostJudge = 1024;

std::string IdOf(const PartResults& parts) { return absl::StrCat(parts.study(), ".", kRole); }

// Labels of one value, in the order of the lines.
absl::StatusOr<std::vector<bool>> LabelsOf(const PartResults& parts, const std::string& phase) {
  std::vector<bool> labels;
  VS_RETURN_IF_ERROR(
      parts.ForEachLine<v1::LabelledResponse>(phase, kRole, [&](const v1::LabelledResponse& line) {
        labels.push_back(line.expresses());
        return absl::OkStatus();
      }));
  return labels;
}

// Adds the lines of a condition, which all of `values` judged.
absl::Status AppendLines(const PartResults& parts, const std::vector<std::string>& values,
                         v1::StudyCondition condition, store::BlobWriter& writer) {
  std::vector<std::vector<bool>> labels;
  for (const std::string& value : values) {
    VS_ASSIGN_OR_RETURN(labels.emplace_back(), LabelsOf(parts, PhaseOf("judge", value, condition)));
  }
  size_t place = 0;
  return parts.ForEachLine<v1::LabelledResponse>(
      PhaseOf("judge", values.front(), condition), kRole, [&](const v1::LabelledResponse& line) {
        v1::LabelledResponse labelled = line;
        labelled.clear_expresses();
        for (size_t v = 0; v < values.size(); ++v) {
          services::SetValueLabel(values[v], labels[v].at(place), labelled);
        }
        ++place;
        return writer.Append(JsonLineOf(labelled));
      });
}

// Who labelled, value by value where that differs; by its digest where it is long.
absl::StatusOr<std::string> JudgesOf(const PartResults& parts,
                                     const std::vector<std::string>& values) {
  std::vector<std::string> judges;
  for (const std::string& value : values) {
    VS_ASSIGN_OR_RETURN(const std::string judge,
                        parts.JudgeOf(PhaseOf("judge", value, v1::STUDY_CONDITION_INTRINSIC)));
    judges.push_back(values.size() == 1 ? judge : absl::StrCat(value, ": ", judge));
  }
  std::string all = absl::StrJoin(judges, "; ");
  if (all.size() <= kMostJudge) return all;
  return absl::StrCat("the study's judge of each value, SHA-256 ", Sha256Hex(all));
}

}  // namespace

absl::Status StoreTraining(const StudyGathering& of, const std::vector<std::string>& values) {
  VS_ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobWriter> writer,
                      of.tools.sources.blobs->NewWriter());
  VS_RETURN_IF_ERROR(AppendLines(of.parts, values, v1::STUDY_CONDITION_INTRINSIC, *writer));
  for (const std::string& value : values) {
    VS_RETURN_IF_ERROR(AppendLines(of.parts, {value}, v1::STUDY_CONDITION_PROMPTED, *writer));
  }
  VS_ASSIGN_OR_RETURN(store::StoredBlob lines, writer->Finish());
  v1::Provenance provenance = studies::ProvenanceOf(of.model, /*rendered_chat=*/true);
  VS_ASSIGN_OR_RETURN(*provenance.mutable_judge(), JudgesOf(of.parts, values));
  store::Resource artifact = jobs::ResourceOf(ArtifactOf(std::move(lines), kRole, "responses.jsonl",
                                                         services::kDataSetMediaType, provenance),
                                              IdOf(of.parts));
  artifact.job_id = of.parts.study();
  artifact.role = kRole;
  return of.tools.sources.store->PutResources(of.context.tenant, {std::move(artifact)}, {})
      .status();
}

absl::StatusOr<StudyPart> ExtractionPart(const v1::ValueStudySpec& spec, const PartResults& parts,
                                         const std::vector<std::string>& values) {
  StudyPart part{.phase = kExtraction, .spec = {}};
  v1::ExtractVectorsRequest& request = *part.spec.mutable_extract_vectors();
  request.set_model(spec.model());
  request.set_artifact(store::ResourceName(store::ResourceKind::kArtifact, IdOf(parts)));
  *request.mutable_layers() = spec.layers();
  VS_ASSIGN_OR_RETURN(*request.mutable_judge(), JudgesOf(parts, values));
  for (const std::string& value : values) {
    for (const v1::StudyCondition condition : kStudyConditions) {
      v1::ValueVector& vector = *request.add_vectors();
      vector.set_value(value);
      vector.add_conditions(NameOf(condition));
      vector.set_display_name(absl::StrCat(value, " ", NameOf(condition)));
    }
  }
  return part;
}

}  // namespace valuescope::kinds
