// What a sweep measures at a point, as numbers with names (SweepEvaluation of the contract lists
// them), from what the kinds of work make of the point's responses and items. A result that tells
// nothing yet has the same names without values.
#ifndef VALUESCOPE_KINDS_SWEEP_MEASURES_H_
#define VALUESCOPE_KINDS_SWEEP_MEASURES_H_

#include <cstdint>
#include <string>

#include "google/protobuf/repeated_field.h"
#include "kinds/saved_work.pb.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/sweeps.pb.h"

namespace valuescope::kinds {

using SweepMeasures = google::protobuf::RepeatedPtrField<v1::SweepMeasure>;

// What is counted of responses beside their texts.
struct JudgedCounts {
  bool labelled = false;  // somebody judges
  bool asked = false;     // a model does
  int64_t responses = 0;
  int64_t empty = 0;
  int64_t expressing = 0;
  int64_t answers = 0;  // of the model that judges
  double mass = 0;      // of these, summed

  void Add(const SavedResponse& response);
};

// Each adds the measures of the evaluation `name`. `request` has its defaults filled in.
void AddMeasures(const std::string& name, const v1::MeasureTextsRequest& request,
                 const JudgedCounts& counts, const v1::TextMeasures& texts,
                 SweepMeasures& measures);
void AddMeasures(const std::string& name, const v1::QuestionnaireResult& result,
                 SweepMeasures& measures);
void AddMeasures(const std::string& name, v1::ChoiceReading reading,
                 const v1::ChoicesResult& result, SweepMeasures& measures);
void AddMeasures(const std::string& name, const v1::TaggedResult& result, SweepMeasures& measures);

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_SWEEP_MEASURES_H_
