#include "kinds/evaluation_request.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "base/id.h"
#include "kinds/generation_request.h"
#include "services/intervention_codec.h"
#include "services/prompt_codec.h"
#include "services/reply_size.h"
#include "services/user_turns.h"

namespace valuescope::kinds {
namespace {

constexpr int kMostConditions = 64;
constexpr size_t kMostNameBytes = 256;
// A call is answered within minutes on what serves a small model.
constexpr int64_t kMostPassesAtOnce = 20'000;

absl::Status UseAJob(absl::string_view takes, int64_t allowed) {
  return NeverFits("USE_A_JOB", absl::StrCat(takes, ", one call takes ", allowed,
                                             "; create a job with the same request"));
}

// A name that other conditions have too is no name.
absl::StatusOr<std::string> NameOf(const std::string& field,
                                   const v1::EvaluationCondition& condition,
                                   const SavedEvaluation& before) {
  const int number = before.conditions_size();
  const std::string name = condition.name().empty() ? absl::StrCat(number) : condition.name();
  if (name.size() > kMostNameBytes) {
    return InvalidField(
        absl::StrCat(field, ".name"),
        absl::StrCat("has ", name.size(), " bytes, allowed are at most ", kMostNameBytes));
  }
  for (int c = 0; c < number; ++c) {
    if (before.conditions(c).name() != name) continue;
    return InvalidField(absl::StrCat(field, ".name"),
                        absl::StrCat("is `", name, "`, as that of conditions[", c, "] is"));
  }
  return name;
}

}  // namespace

AskingShape ShapeOf(const services::LabelTokens& labels, int64_t max_answer_tokens) {
  const services::LabelTokens::Cost cost = labels.CostOfPrompt();
  const bool samples_alone = labels.by_sequences() && max_answer_tokens > 0;
  return {.passes = cost.passes + (samples_alone ? 1 : 0),
          .tokens = cost.tokens,
          .longest = cost.longest,
          .max_answer_tokens = max_answer_tokens};
}

AskingShape ShapeOfContinuations(const SavedItem& item) {
  AskingShape shape{.passes = item.continuations_size()};
  for (const v1::TokenIds& continuation : item.continuations()) {
    shape.tokens += continuation.ids_size();
    shape.longest = std::max<int64_t>(shape.longest, continuation.ids_size());
  }
  return shape;
}

absl::Status AddContinuation(const GivenPlace& place, const std::string& text,
                             const engine::ServedModel& model, SavedItem& item) {
  v1::Response response;
  response.set_text(text);
  const auto ids = services::ResponseFromProto(place.field, response, model);
  if (!ids.ok()) return place.Of(ids.status());
  if (ids->empty()) return InvalidField(place.field, absl::StrCat(place.line, "has no tokens"));
  item.add_continuations()->mutable_ids()->Assign(ids->begin(), ids->end());
  return absl::OkStatus();
}

engine::Sampling GreedySampling(int64_t max_tokens) {
  engine::Sampling sampling;
  sampling.max_tokens = static_cast<int>(max_tokens);
  sampling.temperature = 0;
  return sampling;
}

// --- Conditions ----------------------------------------------------------------------------------

absl::StatusOr<EvaluationWriter> EvaluationWriter::Create(
    const google::protobuf::RepeatedPtrField<v1::EvaluationCondition>& conditions, int num_forms,
    std::shared_ptr<const engine::ServedModel> model, const rpc::CallContext& context,
    const services::ResolveOptions& options, const Sources& sources,
    services::UsedResources& used) {
  if (conditions.size() > kMostConditions) {
    return OutOfRange("conditions", conditions.size(), 1, kMostConditions);
  }
  EvaluationWriter writer(context, options);
  writer.inputs_ = {.tenant = context.tenant, .models = sources.models, .held = std::move(model)};
  writer.inputs_.record.mutable_evaluation()->set_num_forms(num_forms);
  VS_ASSIGN_OR_RETURN(
      writer.takes_system_message_,
      services::TakesSystemMessage("conditions", *writer.inputs_.held, writer.now_));
  google::protobuf::RepeatedPtrField<v1::EvaluationCondition> plain;
  if (conditions.empty()) plain.Add();
  const auto& all = conditions.empty() ? plain : conditions;
  for (int c = 0; c < all.size(); ++c) {
    VS_RETURN_IF_ERROR(
        writer.AddCondition(absl::StrCat("conditions[", c, "]"), all[c], sources, used));
  }
  writer.inputs_.record.mutable_evaluation()->set_num_system_messages(
      static_cast<int>(writer.system_messages_.size()));
  return writer;
}

absl::Status EvaluationWriter::AddCondition(const std::string& field,
                                            const v1::EvaluationCondition& condition,
                                            const Sources& sources, services::UsedResources& used) {
  const engine::ServedModel& model = *inputs_.held;
  VS_RETURN_IF_ERROR(context_.Why());
  SavedEvaluation& how = *inputs_.record.mutable_evaluation();
  VS_ASSIGN_OR_RETURN(std::string name, NameOf(field, condition, how));
  if (!condition.system_messages().empty()) {
    return InvalidField(absl::StrCat(field, ".system_messages"),
                        "must be empty: one is drawn where responses are generated alone");
  }
  VS_RETURN_IF_ERROR(services::CheckSystemMessage(absl::StrCat(field, ".system_message"),
                                                  condition.system_message(), takes_system_message_,
                                                  model));
  auto prepared = services::PreparedFromProto(condition.interventions(),
                                              {inputs_.tenant, model, *sources.vectors}, used);
  if (!prepared.ok()) return InField(field, prepared.status());
  inputs_.conditions.push_back(*std::move(prepared));
  // What a template without system messages makes of an empty one is none.
  std::optional<std::string> system;
  if (condition.has_system_message() && takes_system_message_) system = condition.system_message();
  auto place = std::find(system_messages_.begin(), system_messages_.end(), system);
  if (place == system_messages_.end()) place = system_messages_.insert(place, system);
  SavedEvaluationCondition& saved = *how.add_conditions();
  saved.set_name(std::move(name));
  saved.set_system_message(static_cast<int>(place - system_messages_.begin()));
  if (options_.at_once) return absl::OkStatus();
  VS_RETURN_IF_ERROR(
      context_.Hold(static_cast<int64_t>(condition.interventions().SpaceUsedExcludingSelfLong())));
  *saved.mutable_interventions() = condition.interventions();
  return absl::OkStatus();
}

// --- Items ---------------------------------------------------------------------------------------

absl::Status EvaluationWriter::Add(const GivenPlace& place, const std::vector<std::string>& turns,
                                   const std::string& answer_prefix, const AskingShape& shape,
                                   SavedItem item) {
  // One may have come about where a template and what was put into it meet.
  for (const std::string& turn : turns) {
    VS_RETURN_IF_ERROR(place.Of(services::CheckIsText(place.field, turn, *inputs_.held)));
  }
  for (int system = 0; system < std::ssize(system_messages_); ++system) {
    for (const std::string& turn : turns) {
      VS_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                          PromptOf(place, system, turn, answer_prefix));
      item.add_prompts()->mutable_ids()->Assign(ids.begin(), ids.end());
    }
  }
  VS_RETURN_IF_ERROR(context_.Hold(static_cast<int64_t>(item.ByteSizeLong())));
  *inputs_.items.add_items() = std::move(item);
  VS_RETURN_IF_ERROR(Count(shape));
  return Check(place, turns, shape);
}

absl::StatusOr<std::vector<int32_t>> EvaluationWriter::PromptOf(const GivenPlace& place, int system,
                                                                const std::string& turn,
                                                                const std::string& answer_prefix) {
  const engine::ServedModel& model = *inputs_.held;
  const std::optional<std::string>& message = system_messages_[static_cast<size_t>(system)];
  auto prompt = services::PromptFromProto(
      place.field, services::UserTurn(message ? &*message : nullptr, turn), model, {.now = now_});
  if (!prompt.ok()) return AtPrompt(place, system, turn, prompt.status());
  const std::string text = absl::StrCat(prompt->text, answer_prefix);
  if (inputs_.items.items().empty() && inputs_.how().example_prompt().empty()) {
    inputs_.record.mutable_evaluation()->set_example_prompt(text);
  }
  if (answer_prefix.empty()) return std::move(prompt->ids);
  auto ids = model.text->EncodeText(text, /*add_special_tokens=*/false);
  if (!ids.ok()) return place.Of(ids.status());
  return ids;
}

absl::Status EvaluationWriter::AtPrompt(const GivenPlace& place, int system,
                                        const std::string& turn, const absl::Status& status) const {
  const std::optional<std::string>& message = system_messages_[static_cast<size_t>(system)];
  if (!message || message->empty() ||
      !services::StandsAlone(turn, takes_system_message_, *inputs_.held, now_)) {
    return place.Of(status);
  }
  const auto& conditions = inputs_.how().conditions();
  const auto first = std::find_if(
      conditions.begin(), conditions.end(),
      [=](const SavedEvaluationCondition& one) { return one.system_message() == system; });
  const auto number = first - conditions.begin();
  return GivenPlace{.field = absl::StrCat("conditions[", number, "].system_message"), .line = ""}
      .Of(status);
}

absl::Status EvaluationWriter::Count(const AskingShape& shape) {
  const SavedItem& item = *inputs_.items.items().rbegin();
  for (int c = 0; c < inputs_.how().conditions_size(); ++c) {
    for (int form = 0; form < inputs_.how().num_forms(); ++form) {
      const auto prompt = static_cast<int64_t>(inputs_.RequestOf(item, c, form).prompt.size());
      passes_ += shape.passes;
      tokens_ += shape.passes * prompt + shape.tokens + shape.max_answer_tokens;
      generated_ += shape.max_answer_tokens;
    }
  }
  if (options_.at_once && passes_ > kMostPassesAtOnce) {
    return UseAJob("it takes more passes of the model", kMostPassesAtOnce);
  }
  if (options_.at_once && generated_ > kMostGeneratedAtOnce) {
    return UseAJob("`max_answer_tokens`: answers may take more tokens", kMostGeneratedAtOnce);
  }
  return absl::OkStatus();
}

absl::Status EvaluationWriter::Check(const GivenPlace& place, const std::vector<std::string>& turns,
                                     const AskingShape& shape) {
  const SavedItem& item = *inputs_.items.items().rbegin();
  for (int c = 0; c < inputs_.how().conditions_size(); ++c) {
    for (int form = 0; form < inputs_.how().num_forms(); ++form) {
      const std::string& turn = turns[static_cast<size_t>(form)];
      engine::Request request = inputs_.RequestOf(item, c, form);
      if (!checked_.insert({c, request.prompt.size(), shape.longest}).second) continue;
      if (shape.longest > 0) {
        engine::Request scored = request;
        scored.given_response.resize(static_cast<size_t>(shape.longest));
        scored.score_response = true;
        VS_RETURN_IF_ERROR(CheckOne(place, c, turn, scored));
      }
      if (shape.max_answer_tokens > 0) request.sampling = GreedySampling(shape.max_answer_tokens);
      if (shape.longest > 0 && !request.sampling) continue;
      if (shape.longest == 0) request.taps = {services::LogitsBehindThePrompt()};
      VS_RETURN_IF_ERROR(CheckOne(place, c, turn, request));
    }
  }
  return absl::OkStatus();
}

absl::Status EvaluationWriter::CheckOne(const GivenPlace& place, int condition,
                                        const std::string& turn,
                                        const engine::Request& request) const {
  const absl::Status status = inputs_.held->engine->Check(request);
  const std::string field = DetailsOf(status).field;
  if (absl::StartsWith(field, "interventions")) {
    return InField(absl::StrCat("conditions[", condition, "]"), status);
  }
  if (absl::StartsWith(field, "sampling")) {
    return WithFieldRenamed(status, field, "max_answer_tokens");
  }
  if (absl::StartsWith(field, "prompt")) {
    return AtPrompt(place, inputs_.how().conditions(condition).system_message(), turn, status);
  }
  return place.Of(status);
}

absl::StatusOr<EvaluationWriter::Written> EvaluationWriter::Finish(const std::string& display_name,
                                                                   int64_t bytes_per_reading) {
  VS_RETURN_IF_ERROR(CheckDisplayName("display_name", display_name));
  const engine::ServedModel& model = *inputs_.held;
  const int64_t items = inputs_.items.items_size();
  const int64_t bytes = items * inputs_.readings_per_item() * bytes_per_reading;
  if (options_.at_once && bytes > services::kMostReplyBytes) {
    return UseAJob(absl::StrCat("answers may take ", bytes, " bytes"), services::kMostReplyBytes);
  }
  SavedEvaluation how = std::move(*inputs_.record.mutable_evaluation());
  inputs_.record = RecordOf(model, display_name, options_);
  how.set_bytes_per_reading(bytes_per_reading);
  inputs_.record.set_num_responses(items);
  *inputs_.record.mutable_evaluation() = std::move(how);
  inputs_.record.set_responses_per_shard(ItemsPerShard(items, inputs_.readings_per_item()));
  if (!options_.at_once) VS_RETURN_IF_ERROR(CheckStorable(inputs_, context_));
  Written written;
  written.estimate = EstimateOf(model, tokens_, passes_, bytes);
  VS_ASSIGN_OR_RETURN(written.memory,
                      MemoryFor(inputs_, *model.engine, /*can_wait=*/!options_.at_once));
  written.inputs = std::move(inputs_);
  return written;
}

absl::StatusOr<std::string> ItemIds::Add(const GivenPlace& place, const std::string& id,
                                         int64_t number) {
  std::string name = id.empty() ? absl::StrCat(number) : id;
  if (name.size() > kMostNameBytes) {
    return place.Invalid("id", absl::StrCat("has more than ", kMostNameBytes, " bytes"));
  }
  if (ids_.insert(name).second) return name;
  return place.Invalid("id", absl::StrCat("is `", name, "`, as that of another item is"));
}

absl::Status CheckTemplate(absl::string_view field, const std::string& text,
                           const std::vector<std::string>& places,
                           const engine::ServedModel& model) {
  if (text.size() > kMostTemplateBytes) {
    return InvalidField(field, absl::StrCat("has ", text.size(), " bytes, allowed are at most ",
                                            kMostTemplateBytes));
  }
  for (const std::string& place : places) {
    if (!absl::StrContains(text, place)) {
      return InvalidField(field, absl::StrCat("must hold ", place));
    }
  }
  return services::CheckIsText(field, text, model);
}

}  // namespace valuescope::kinds
