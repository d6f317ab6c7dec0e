// The jobs that a value study is made of, as requests to other kinds. A part is named by what it
// does and for whom: "generate_intrinsic", "judge/stimulation/prompted", "extract",
// "test/power/de".
#ifndef VALUESCOPE_KINDS_STUDY_PARTS_H_
#define VALUESCOPE_KINDS_STUDY_PARTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "kinds/saved_work.pb.h"
#include "valuescope/v1/jobs.pb.h"
#include "valuescope/v1/studies.pb.h"

namespace valuescope::kinds {

struct StudyPart {
  std::string phase;
  v1::JobSpec spec;
};

// Of responses, and so of vectors; results have them in this order.
inline constexpr v1::StudyCondition kStudyConditions[] = {v1::STUDY_CONDITION_INTRINSIC,
                                                          v1::STUDY_CONDITION_PROMPTED};
// The part that answers training queries for all values.
inline constexpr char kGenerateIntrinsic[] = "generate_intrinsic";
// The part that makes all vectors.
inline constexpr char kExtraction[] = "extract";
// Neurons that are told of each set.
inline constexpr int kTopNeurons = 100;

// "intrinsic", "prompted"; "intrinsic_orthogonal" and so on; "neurons_shared" and so on.
std::string NameOf(v1::StudyCondition condition);
std::string NameOf(v1::StudyDirection direction);
std::string NameOf(const v1::StudySubject& subject);

// Names of parts: "WHAT/VALUE", "WHAT/VALUE/CONDITION", and "WHAT/VALUE/LANGUAGE", or "WHAT/VALUE"
// in the study's own language, whose name is empty.
std::string PhaseOf(absl::string_view what, absl::string_view value);
std::string PhaseOf(absl::string_view what, absl::string_view value, v1::StudyCondition condition);
std::string PhaseOf(absl::string_view what, absl::string_view value,
                    const v1::StudyLanguage& language);

// Values that have vectors, or may come to have some.
std::vector<v1::StudiedValue*> LiveValues(SavedStudyState& state);
// FAILED_PRECONDITION, reason TOO_FEW_RESPONSES, where there is none.
absl::Status CheckAnyLives(const SavedStudyState& state);
// vectors/ID of a value that has vectors.
const std::string& VectorOf(const v1::StudiedValue& value, v1::StudyCondition condition);

// The study's own language, without a name, then the others: what is asked in each when results are
// reported, with a judge of each value where queries are.
std::vector<v1::StudyLanguage> LanguagesOf(const v1::ValueStudySpec& spec);
// The one that scores the value's answers in a language that has queries.
const v1::Judge& JudgeIn(const v1::StudyLanguage& language, absl::string_view value);

// Of the study's layers that are steered.
v1::Layers OneLayer(int layer);

// The conditions of a value: an empty system message, and one of its own for each query.
v1::EvaluationCondition IntrinsicCondition(absl::string_view name);
v1::EvaluationCondition PromptedCondition(absl::string_view name, const v1::ValueDefinition& value);

// Of training queries, and of others under steering; without conditions.
v1::GenerateResponsesSpec TrainingGeneration(const v1::ValueStudySpec& spec);
v1::GenerateResponsesSpec SteeredGeneration(
    const v1::ValueStudySpec& spec, const google::protobuf::RepeatedPtrField<std::string>& queries);

// Adds `coefficient` times a vector's row at the output of a layer.
v1::Intervention SteeringOf(const v1::ValueStudySpec& spec, const std::string& vector, int layer,
                            float coefficient);

// A sweep over vectors on development queries; `judge` null: nobody labels, and points are chosen
// elsewhere.
v1::SteeringSweepSpec SweepOver(const v1::ValueStudySpec& spec,
                                const google::protobuf::RepeatedPtrField<std::string>& vectors,
                                const v1::Judge* judge);

// The same over classes of a value's neurons, all layers together.
v1::SteeringSweepSpec SweepOverNeurons(const v1::ValueStudySpec& spec,
                                       const v1::StudiedValue& value, const v1::Judge& judge);

// How a value's neurons are classified at some k and angle.
v1::ClassifyNeuronsRequest ClassificationOf(const v1::StudiedValue& value);

// Scales a class of neurons in some layers.
v1::Intervention ScalingOf(const v1::ValueStudySpec& spec, const v1::StudySubject& subject,
                           const v1::SweepPoint& point);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_PARTS_H_
