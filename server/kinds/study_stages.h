// A value study is a chain of stages. Most are jobs of other kinds, the parts of the study's job,
// which run beside one another; a stage begins once all parts of the one before have succeeded and
// what they found was gathered. What is cheap (decomposing vectors, classifying neurons, choosing
// points, the statistics) is done where it is gathered.
//
//   generate   "generate_intrinsic", "generate/VALUE"           answers to training queries
//   judge      "judge/VALUE/CONDITION"                          labelled by the value's judge; then
//                                                               put into one data set
//   extract    "extract"                                        all vectors; then decomposed,
//                                                               classified, brought to one norm
//   attribute  "attribute/VALUE/CONDITION"                      neurons
//   sweep      "sweep/VALUE", "sweep_neurons/VALUE",            development queries over the grid
//              "sweep_random"
//   select     "select/VALUE"                                   labels of the random directions'
//                                                               answers; then points are chosen
//   test       "test/VALUE"                                     answers to test queries
//              "remove/VALUE/CONDITION"                         what neurons cause
//   measure    "score/VALUE", "measure/VALUE", "ask/VALUE",     what those are like
//              "choose/VALUE"
//
// The second half's "test", "score", "measure" and "ask" are there for every other language too, as
// "test/VALUE/LANGUAGE". The random directions are run once for all values, without a judge, since
// every value has its own.
#ifndef VALUESCOPE_KINDS_STUDY_STAGES_H_
#define VALUESCOPE_KINDS_STUDY_STAGES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/served_model.h"
#include "kinds/saved_work.pb.h"
#include "kinds/study_gathering.h"
#include "kinds/study_parts.h"
#include "kinds/study_results.h"
#include "kinds/study_tools.h"
#include "rpc/call_context.h"

namespace valuescope::kinds {

enum class StudyStage : uint8_t {
  kGenerate,
  kJudge,
  kExtract,
  kAttribute,
  kSweep,
  kSelect,
  kTest,
  kMeasure,
};
inline constexpr int kNumStudyStages = 8;

// Of one study, for a while. What it refers to outlives it.
class StudyStages {
 public:
  StudyStages(const v1::ValueStudySpec& spec, const engine::ServedModel& model,
              const rpc::CallContext& context, const StudyTools& tools)
      : spec_(spec), model_(model), context_(context), tools_(tools) {}

  // Parts of a stage, once those before it are gathered; none where there is nothing to do.
  absl::StatusOr<std::vector<StudyPart>> PartsOf(StudyStage stage, const SavedStudyState& state,
                                                 const PartResults& parts) const;

  // Adds what came of a stage whose parts have all succeeded. FAILED_PRECONDITION, reason
  // TOO_FEW_RESPONSES, where no value is left to study; errors of what is done here; DATA_LOSS.
  absl::Status Gather(StudyStage stage, const PartResults& parts, SavedStudyState& state) const;

 private:
  std::vector<StudyPart> ToGenerate() const;
  std::vector<StudyPart> ToJudge(const PartResults& parts) const;
  absl::StatusOr<std::vector<StudyPart>> ToExtract(const SavedStudyState& state,
                                                   const PartResults& parts) const;
  absl::StatusOr<std::vector<StudyPart>> ToAttribute(const SavedStudyState& state,
                                                     const PartResults& parts) const;
  std::vector<StudyPart> ToSweep(const SavedStudyState& state) const;
  std::vector<StudyPart> ToSelect(const SavedStudyState& state, const PartResults& parts) const;
  std::vector<StudyPart> ToTest(const SavedStudyState& state) const;
  absl::StatusOr<std::vector<StudyPart>> ToRemove(const SavedStudyState& state,
                                                  const PartResults& parts) const;
  std::vector<StudyPart> ToMeasure(const SavedStudyState& state, const PartResults& parts) const;

  // Of one value in one language.
  void MeasureValue(const SavedStudyState& state, const PartResults& parts,
                    const v1::StudyLanguage& language, int v,
                    std::vector<StudyPart>& measured) const;

  absl::Status GatherPrompts(SavedStudyState& state) const;
  absl::Status GatherLabels(const StudyGathering& gathering, SavedStudyState& state) const;

  const v1::ValueStudySpec& spec_;
  const engine::ServedModel& model_;
  const rpc::CallContext& context_;
  const StudyTools& tools_;
};

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_STUDY_STAGES_H_
