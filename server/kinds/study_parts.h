// The jobs that a value study is made of, as requests to other kinds. A part is named by what it
// does and for whom: "generate/intrinsic", "extract/stimulation/prompted", "sweep/random".
#ifndef VALUESCOPE_KINDS_STUDY_PARTS_H_
#define VALUESCOPE_KINDS_STUDY_PARTS_H_

#include <string>

#include "absl/strings/string_view.h"
#include "google/protobuf/repeated_field.h"
#include "valuescope/v1/jobs.pb.h"
#include "valuescope/v1/studies.pb.h"

namespace valuescope::kinds {

struct StudyPart {
  std::string phase;
  v1::JobSpec spec;
};

// "intrinsic", "prompted"; "intrinsic_orthogonal" and so on; "neurons_shared" and so on.
std::string NameOf(v1::StudyCondition condition);
std::string NameOf(v1::StudyDirection direction);
std::string NameOf(const v1::StudySubject& subject);

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
