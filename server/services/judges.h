// Who says whether a response expresses a value, or how good it is: some words, or a served model
// that is asked.
//
// A model is asked a question that yes or no answers, or a number from 0 to 10, and its answer is
// read where it would begin (rubrics.h). The response expresses the value where
// p(yes) / (p(yes) + p(no)) reaches the threshold; a grade is the expected number. Where the
// probability of all answers together, their mass, is small, the model says something else, and
// either means little.
#ifndef VALUESCOPE_SERVICES_JUDGES_H_
#define VALUESCOPE_SERVICES_JUDGES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/served_model.h"
#include "services/rubrics.h"
#include "valuescope/v1/common.pb.h"
#include "valuescope/v1/evaluation.pb.h"
#include "valuescope/v1/judges.pb.h"

namespace valuescope::services {

// Texts, UTF-8.
struct Answered {
  std::string query;
  std::string response;
};

// Of a model's answer.
struct YesOrNo {
  double probability = 0;  // p(yes) / (p(yes) + p(no))
  double mass = 0;         // p(yes) + p(no)
};

struct Grade {
  double expected = 0;  // 0 .. 10
  double mass = 0;      // p(0) + ... + p(10)
};

struct Judgement {
  bool expresses = false;         // where the judge labels
  std::optional<YesOrNo> answer;  // of a model that labels
  std::optional<Grade> grade;     // of one that grades
};

// Immutable; safe from any number of threads.
class Judge {
 public:
  virtual ~Judge() = default;

  // As Provenance.judge tells of it: "word list, sha256 HEX" of the words, a line each, or "rubric
  // of models/ID, sha256 HEX" of the rubric.
  virtual std::string Description() const = 0;

  // Tokens of a model's at most for one response of `tokens` tokens to the query; 0 without one.
  // INVALID_ARGUMENT where the model's context does not hold so much.
  virtual absl::StatusOr<int64_t> MostTokens(absl::string_view query, int64_t tokens) const = 0;

  // One of each, in order. What it costs is added to `usage`. INVALID_ARGUMENT where the judge's
  // context does not hold one of them.
  virtual absl::StatusOr<std::vector<Judgement>> Label(std::span<const Answered> responses,
                                                       const JudgedFor& whom,
                                                       v1::Usage& usage) const = 0;
};

// `model` is that of a rubric; null for words. `now` is the clock of its chat template. Errors name
// `field` or what is beneath it: INVALID_ARGUMENT for no words or bad ones, a rubric that lacks a
// place to fill or holds a control token, a threshold outside 0 .. 1; FAILED_PRECONDITION where the
// model has no chat template, or (reason UNREADABLE_JUDGE) no tokens that tell yes from no.
absl::StatusOr<std::unique_ptr<const Judge>> JudgeFromProto(
    absl::string_view field, const v1::Judge& judge,
    std::shared_ptr<const engine::ServedModel> model, absl::Time now);

// One that grades, by `model`. The same errors.
absl::StatusOr<std::unique_ptr<const Judge>> GradeFromProto(
    absl::string_view field, const v1::GradeJudge& judge,
    std::shared_ptr<const engine::ServedModel> model, absl::Time now);

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_JUDGES_H_
