// A question about texts that is put to a served model, whose answer is read where it would begin
// (label_reading.h): nothing is drawn and no text is parsed.
//
// The texts come from outside: they are put into the question once, so that what looks like a place
// to fill stays text, and what looks like a control token of the model is broken by a space, so
// that a text cannot end the question and answer it.
#ifndef VALUESCOPE_SERVICES_RUBRICS_H_
#define VALUESCOPE_SERVICES_RUBRICS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "engine/served_model.h"
#include "services/label_reading.h"
#include "services/prompt_codec.h"
#include "valuescope/v1/common.pb.h"

namespace valuescope::services {

// For whom a model answers.
struct JudgedFor {
  std::string tenant;
  bool background = false;  // gives way to requests that people wait for
  Cancellation cancellation;
};

// Below this a mean mass of the answers is worth a warning.
inline constexpr double kLeastAnswerMass = .5;

// Immutable; safe from any number of threads.
class Rubric {
 public:
  // What takes the places, in their order. UTF-8.
  using Filling = std::vector<std::string>;

  // `question` must hold each of `places`, such as "{query}". `labels` are the model's. `now` is
  // the clock of its chat template. Errors name `field`, whose text the question is:
  // INVALID_ARGUMENT for a question that is too long, lacks a place or holds a control token;
  // FAILED_PRECONDITION where the model has no chat template.
  static absl::StatusOr<Rubric> Create(std::string field, std::string question,
                                       std::vector<std::string> places, LabelTokens labels,
                                       std::shared_ptr<const engine::ServedModel> model,
                                       absl::Time now);

  // "rubric of models/ID, sha256 HEX" of the question.
  std::string Description() const;

  // Tokens that one answer takes at most, where the texts of `filling` may be longer by `more`
  // tokens. INVALID_ARGUMENT where the model's context does not hold so much.
  absl::StatusOr<int64_t> MostTokens(const Filling& filling, int64_t more) const;

  // One of each, in order. What it costs is added to `usage`. INVALID_ARGUMENT where the model's
  // context does not hold one of them.
  absl::StatusOr<std::vector<LabelReading>> Ask(std::span<const Filling> fillings,
                                                const JudgedFor& whom, v1::Usage& usage) const;

 private:
  Rubric(std::string field, std::string question, std::vector<std::string> places,
         LabelTokens labels, std::shared_ptr<const engine::ServedModel> model, absl::Time now);

  absl::Status Check() const;
  absl::Status ChooseSystemMessage();
  absl::StatusOr<TokenisedPrompt> PromptOf(const Filling& filling) const;
  absl::StatusOr<TokenisedPrompt> Tokenised(const std::string& text, bool empty_system) const;
  absl::Status AtField(const absl::Status& status) const;

  std::string field_;
  std::string question_;
  std::vector<std::string> places_;
  std::shared_ptr<const LabelTokens> labels_;  // where questions find them, wherever this goes
  std::shared_ptr<const engine::ServedModel> model_;
  absl::Time now_;
  bool empty_system_ = false;
};

}  // namespace valuescope::services

#endif  // VALUESCOPE_SERVICES_RUBRICS_H_
