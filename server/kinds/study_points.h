// From the grid on development queries to what is tested: points of every direction and of the
// random ones, the best of each under the guard, and the ways to answer test queries that follow.
#ifndef VALUESCOPE_KINDS_STUDY_POINTS_H_
#define VALUESCOPE_KINDS_STUDY_POINTS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "google/protobuf/repeated_field.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_gathering.h"
#include "valuescope/v1/jobs.pb.h"
#include "valuescope/v1/studies.pb.h"

namespace valuescope::kinds {

// The part that sweeps over the random directions, and what they are called among a value's points.
inline constexpr char kRandomSweep[] = "sweep_random", kRandomSubject[] = "random";
// Of a value's neurons: "sweep_neurons/VALUE".
inline constexpr char kNeuronSweep[] = "sweep_neurons";
// Outcomes of what is not steered.
inline constexpr char kBaseline[] = "baseline", kSystemMessage[] = "system_message";

// From "sweep/VALUE": the points of each value's directions.
absl::Status GatherPoints(const StudyGathering& gathering, SavedStudyState& state);
// From "sweep_random" and "select/VALUE": those of the random directions, by each value's judge;
// then selections, and why something is not tested.
absl::Status ChoosePoints(const StudyGathering& gathering, SavedStudyState& state);

// Whether any class of the value's neurons is steered.
bool SteersNeurons(const v1::StudiedValue& value);

// The layer where the condition's vector steers best, or else the last that is steered.
int LayerToRead(const v1::ValueStudySpec& spec, const v1::StudiedValue& value,
                v1::StudyCondition condition);

// A way to answer test queries.
struct TestedWay {
  std::string name;  // StudyOutcome.name
  std::optional<v1::StudySubject> subject;
  v1::SweepPoint point;  // of what is steered
};

// Of a value whose points are chosen: what is not steered, its directions and neurons and, in the
// study's own language alone, the random directions; each at its best point, those without one left
// out.
std::vector<TestedWay> WaysToTest(const SavedStudyState& state, const v1::StudiedValue& value,
                                  const v1::StudyLanguage& language);

// The same of the value of that number as conditions, whose names are those of the ways. Where
// system messages are not `drawn` for each query, it is the value's first.
google::protobuf::RepeatedPtrField<v1::EvaluationCondition> TestConditions(
    const v1::ValueStudySpec& spec, const SavedStudyState& state, int value,
    const v1::StudyLanguage& language, bool drawn);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_POINTS_H_
