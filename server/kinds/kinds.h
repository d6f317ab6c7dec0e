// The kinds of work that this server does, a file each. A new one is added here.
#ifndef VALUESCOPE_KINDS_KINDS_H_
#define VALUESCOPE_KINDS_KINDS_H_

#include <memory>

#include "kinds/response_work.h"
#include "kinds/study_tools.h"
#include "services/kind.h"

namespace valuescope::kinds {

std::unique_ptr<services::Kind> AnswerChoices(const Sources& sources);
std::unique_ptr<services::Kind> AskQuestionnaire(const Sources& sources);
std::unique_ptr<services::Kind> AttributeNeurons(const Sources& sources);
std::unique_ptr<services::Kind> Capture(const Sources& sources);
std::unique_ptr<services::Kind> CompareResponses(const Sources& sources);
std::unique_ptr<services::Kind> ExtractVectors(const Sources& sources);
std::unique_ptr<services::Kind> GenerateResponses(const Sources& sources);
std::unique_ptr<services::Kind> JudgeResponses(const Sources& sources);
std::unique_ptr<services::Kind> MeasureTexts(const Sources& sources);
std::unique_ptr<services::Kind> ScoreTaggedResponses(const Sources& sources);
std::unique_ptr<services::Kind> SteeringSweep(const Sources& sources);
std::unique_ptr<services::Kind> TestNeurons(const Sources& sources);
// Is made of the others, and of calls.
std::unique_ptr<services::Kind> ValueStudy(const StudyTools& tools);

inline void AddKinds(const Sources& sources, services::KindRegistry& registry) {
  for (const auto& make : {AnswerChoices, AskQuestionnaire, AttributeNeurons, Capture,
                           CompareResponses, ExtractVectors, GenerateResponses, JudgeResponses,
                           MeasureTexts, ScoreTaggedResponses, SteeringSweep, TestNeurons}) {
    registry.Add(make(sources));
  }
}

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_KINDS_H_
