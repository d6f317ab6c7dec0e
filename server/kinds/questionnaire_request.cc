#include "kinds/questionnaire_request.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "analysis/questionnaire.h"
#include "base/error.h"
#include "base/status_macros.h"
#include "services/user_turns.h"

namespace valuescope::kinds {
namespace {

using Request = v1::AskQuestionnaireRequest;

constexpr char kItemPlace[] = "{item}", kOptionsPlace[] = "{options}";
constexpr int kFewestOptions = 2, kMostOptions = 16;
constexpr size_t kMostLabelBytes = 64, kMostValueBytes = 256;
// So that no sum of scores, nor a square of one, overflows.
constexpr double kMostScore = 1e9;
constexpr int kMostAnswerTokens = 256;

// --- Options -------------------------------------------------------------------------------------

absl::Status CheckOption(const std::string& field, const v1::AnswerOption& option,
                         const engine::ServedModel& model) {
  const std::string& label = option.label();
  const std::string label_field = absl::StrCat(field, ".label");
  if (label.empty() || label.size() > kMostLabelBytes) {
    return InvalidField(label_field, absl::StrCat("has ", label.size(), " bytes, allowed are 1 to ",
                                                  kMostLabelBytes));
  }
  if (absl::StripAsciiWhitespace(label).size() != label.size()) {
    return InvalidField(label_field, "must not begin or end with white space");
  }
  if (!(std::abs(option.score()) <= kMostScore)) {
    return InvalidField(absl::StrCat(field, ".score"), "must be a number from -1e9 to 1e9",
                        "OUT_OF_RANGE");
  }
  VS_RETURN_IF_ERROR(services::CheckIsText(label_field, label, model));
  return services::CheckIsText(absl::StrCat(field, ".text"), option.text(), model);
}

absl::Status CheckOptions(const Request& request, const engine::ServedModel& model) {
  const auto& options = request.options();
  if (options.size() < kFewestOptions || options.size() > kMostOptions) {
    return OutOfRange("options", options.size(), kFewestOptions, kMostOptions);
  }
  std::set<std::string> labels;
  for (int k = 0; k < options.size(); ++k) {
    const std::string field = absl::StrCat("options[", k, "]");
    VS_RETURN_IF_ERROR(CheckOption(field, options[k], model));
    if (!labels.insert(options[k].label()).second) {
      return InvalidField(absl::StrCat(field, ".label"), "is that of another option too");
    }
    if (k > 0 && options[k].score() <= options[k - 1].score()) {
      return InvalidField(absl::StrCat(field, ".score"), "must be larger than the one before");
    }
  }
  return absl::OkStatus();
}

// As they are listed in an order: labels stay where they are.
std::vector<text::OptionInWords> Listed(const SavedQuestionnaire& questionnaire, bool reversed) {
  std::vector<text::OptionInWords> listed;
  const int last = questionnaire.options_size() - 1;
  for (int k = 0; k <= last; ++k) {
    listed.push_back({.label = questionnaire.options(k).label(),
                      .text = questionnaire.options(reversed ? last - k : k).text()});
  }
  return listed;
}

std::string LinesOf(const std::vector<text::OptionInWords>& listed) {
  return absl::StrJoin(listed, "\n", [](std::string* out, const text::OptionInWords& option) {
    absl::StrAppend(out, option.label, option.text.empty() ? "" : ": ", option.text);
  });
}

void SetOrders(v1::OptionOrder order, SavedQuestionnaire& questionnaire) {
  if (order != v1::OPTION_ORDER_REVERSED) questionnaire.add_reversed(false);
  if (order != v1::OPTION_ORDER_GIVEN) questionnaire.add_reversed(true);
}

// --- Items ---------------------------------------------------------------------------------------

std::optional<analysis::QuestionnaireKey> KeyOf(v1::QuestionnaireKey key) {
  switch (key) {
    case v1::QUESTIONNAIRE_KEY_PVQ_40:
      return analysis::QuestionnaireKey::kPvq40;
    case v1::QUESTIONNAIRE_KEY_PVQ_RR:
      return analysis::QuestionnaireKey::kPvqRr;
    default:
      return std::nullopt;
  }
}

// Items of one language as they are added.
class Items {
 public:
  Items(const Request& request, const SavedQuestionnaire& questionnaire, const AskingShape& shape,
        const engine::ServedModel& model, EvaluationWriter& writer)
      : request_(request),
        key_(KeyOf(request.key())),
        shape_(shape),
        model_(model),
        writer_(writer) {
    for (const bool reversed : questionnaire.reversed()) {
      options_.push_back(LinesOf(Listed(questionnaire, reversed)));
    }
  }

  absl::Status Add(const GivenPlace& place, const v1::QuestionnaireItem& item) {
    const int number = ++counts_[item.language()];
    if (!request_.language().empty() && item.language() != request_.language()) {
      return absl::OkStatus();
    }
    if (counts_.size() > 1 && request_.language().empty()) {
      return InvalidField("language", "is required: the items are of several languages");
    }
    if (item.text().empty()) return place.Invalid("text", "must not be empty");
    if (item.value().size() > kMostValueBytes) {
      return place.Invalid("value", absl::StrCat("has ", item.value().size(),
                                                 " bytes, allowed are ", kMostValueBytes));
    }
    VS_RETURN_IF_ERROR(place.Of(services::CheckIsText(place.field, item.text(), model_)));
    SavedItem saved;
    v1::QuestionnaireItem& kept = *saved.mutable_questionnaire_item();
    VS_ASSIGN_OR_RETURN(*kept.mutable_id(), ids_.Add(place, item.id(), number));
    kept.set_value(item.value());
    kept.set_reverse(item.reverse());
    if (key_) VS_RETURN_IF_ERROR(SetValue(place, kept));
    std::vector<std::string> turns;
    for (const std::string& options : options_) {
      turns.push_back(absl::StrReplaceAll(request_.template_(),
                                          {{kItemPlace, item.text()}, {kOptionsPlace, options}}));
    }
    return writer_.Add(place, turns, request_.answer_prefix(), shape_, std::move(saved));
  }

  bool any() const { return ids_.any(); }

 private:
  absl::Status SetValue(const GivenPlace& place, v1::QuestionnaireItem& item) const {
    int number = 0;
    // "01" and "+1" would be further items with the number 1.
    const bool plain = absl::SimpleAtoi(item.id(), &number) && absl::StrCat(number) == item.id();
    if (!plain || number < 1 || number > analysis::NumItems(*key_)) {
      return place.Invalid("id",
                           absl::StrCat("must be a number 1 .. ", analysis::NumItems(*key_), " of ",
                                        analysis::NameOf(*key_), ", written as digits alone"));
    }
    item.set_value(std::string(analysis::ValueOfItem(*key_, number)));
    return absl::OkStatus();
  }

  const Request& request_;
  const std::optional<analysis::QuestionnaireKey> key_;
  const AskingShape shape_;
  const engine::ServedModel& model_;
  EvaluationWriter& writer_;
  std::vector<std::string> options_;   // by order, as they are listed
  std::map<std::string, int> counts_;  // items by language
  ItemIds ids_;
};

}  // namespace

absl::StatusOr<SavedQuestionnaire> QuestionnaireOf(const Request& request,
                                                   const engine::ServedModel& model) {
  if (!v1::QuestionnaireKey_IsValid(request.key())) {
    return InvalidField("key", "must be a QUESTIONNAIRE_KEY_... of the contract");
  }
  if (!v1::OptionOrder_IsValid(request.order())) {
    return InvalidField("order", "must be an OPTION_ORDER_... of the contract");
  }
  if (request.max_answer_tokens() < 0 || request.max_answer_tokens() > kMostAnswerTokens) {
    return OutOfRange("max_answer_tokens", request.max_answer_tokens(), 0, kMostAnswerTokens);
  }
  VS_RETURN_IF_ERROR(CheckOptions(request, model));
  VS_RETURN_IF_ERROR(
      CheckTemplate("template", request.template_(), {kItemPlace, kOptionsPlace}, model));
  VS_RETURN_IF_ERROR(CheckTemplate("answer_prefix", request.answer_prefix(), {}, model));
  SavedQuestionnaire questionnaire;
  *questionnaire.mutable_options() = request.options();
  SetOrders(request.order(), questionnaire);
  questionnaire.set_max_answer_tokens(request.max_answer_tokens());
  if (questionnaire.max_answer_tokens() > 0) VS_RETURN_IF_ERROR(NamersOf(questionnaire).status());
  return questionnaire;
}

absl::StatusOr<services::LabelTokens> LabelsOf(const SavedQuestionnaire& questionnaire,
                                               const engine::ServedModel& model) {
  std::vector<services::Spellings> labels;
  for (const v1::AnswerOption& option : questionnaire.options()) labels.push_back({option.label()});
  return services::LabelTokens::Of(labels, model);
}

absl::StatusOr<std::vector<text::NamedOption>> NamersOf(const SavedQuestionnaire& questionnaire) {
  std::vector<text::NamedOption> namers;
  for (const bool reversed : questionnaire.reversed()) {
    auto namer = text::NamedOption::Create(Listed(questionnaire, reversed));
    if (!namer.ok()) return InField("options", namer.status());
    namers.push_back(*std::move(namer));
  }
  return namers;
}

absl::Status AddItems(const Request& request, const SavedQuestionnaire& questionnaire,
                      const AskingShape& shape, const engine::ServedModel& model,
                      const rpc::CallContext& context, const Sources& sources,
                      services::UsedResources& used, EvaluationWriter& writer) {
  Items items(request, questionnaire, shape, model, writer);
  VS_RETURN_IF_ERROR(ForEachItem<v1::QuestionnaireItem>(
      "items", request.items(), request.artifact(), {"reverse"}, context, sources, used,
      [&](const GivenPlace& place, const v1::QuestionnaireItem& item) {
        return items.Add(place, item);
      }));
  if (items.any()) return absl::OkStatus();
  return InvalidField(
      "language", absl::StrCat("is `", request.language(), "`, and no item is of that language"));
}

}  // namespace valuescope::kinds
