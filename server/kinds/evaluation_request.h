// A request to evaluate a model, resolved: conditions named, system messages and interventions
// looked at, items written as prompts and tokenised, everything checked that can be before anything
// runs.
#ifndef VALUESCOPE_KINDS_EVALUATION_REQUEST_H_
#define VALUESCOPE_KINDS_EVALUATION_REQUEST_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "engine/served_model.h"
#include "kinds/evaluation_work.h"
#include "kinds/given_place.h"
#include "kinds/sources.h"
#include "rpc/call_context.h"
#include "services/data_set_lines.h"
#include "services/kind.h"
#include "services/request_codec.h"
#include "services/response_sets.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {

inline constexpr size_t kMostTemplateBytes = 16384;  // it stands in records

// What runs of an item under a condition in a form.
struct AskingShape {
  int64_t passes = 1;
  int64_t tokens = 0;             // behind the prompt, of all passes together
  int64_t longest = 0;            // of one pass; 0: logits are read
  int64_t max_answer_tokens = 0;  // sampled greedily; 0: none
};

// Of labels that are read, and perhaps an answer in words.
AskingShape ShapeOf(const services::LabelTokens& labels, int64_t max_answer_tokens = 0);

// Of the item's continuations.
AskingShape ShapeOfContinuations(const SavedItem& item);

// Adds the tokens of a text that is scored behind the item's prompts. INVALID_ARGUMENT naming the
// place where it has none.
absl::Status AddContinuation(const GivenPlace& place, const std::string& text,
                             const engine::ServedModel& model, SavedItem& item);

// How an answer in words is drawn.
engine::Sampling GreedySampling(int64_t max_tokens);

// Items as they are added, each checked at once.
class EvaluationWriter {
 public:
  // Resolves the conditions, one without anything where there are none; what they name is added to
  // `used`. Errors name "conditions[i]...". The context outlives the writer.
  static absl::StatusOr<EvaluationWriter> Create(
      const google::protobuf::RepeatedPtrField<v1::EvaluationCondition>& conditions, int num_forms,
      std::shared_ptr<const engine::ServedModel> model, const rpc::CallContext& context,
      const services::ResolveOptions& options, const Sources& sources,
      services::UsedResources& used);

  // Adds what stands in `item` with prompts: `turns`, the user's, one a form, and what the
  // assistant's begins with. INVALID_ARGUMENT naming the place, the condition at fault, or
  // "max_answer_tokens"; RESOURCE_EXHAUSTED (USE_A_JOB): more than a call takes at once.
  absl::Status Add(const GivenPlace& place, const std::vector<std::string>& turns,
                   const std::string& answer_prefix, const AskingShape& shape, SavedItem item);

  // What is to run, without provenance and the kind's own field, once the job can keep it or the
  // call its memory for it, and what it costs; a reading takes so many bytes in an answer. At least
  // one item was added.
  struct Written {
    EvaluationInputs inputs;
    services::WorkEstimate estimate;
    engine::KeptCaptures memory;  // for what comes of the items
  };
  absl::StatusOr<Written> Finish(const std::string& display_name, int64_t bytes_per_reading);

 private:
  EvaluationWriter(const rpc::CallContext& context, const services::ResolveOptions& options)
      : context_(context), options_(options), now_(absl::Now()) {}

  absl::Status AddCondition(const std::string& field, const v1::EvaluationCondition& condition,
                            const Sources& sources, services::UsedResources& used);
  // Behind system_messages_[system].
  absl::StatusOr<std::vector<int32_t>> PromptOf(const GivenPlace& place, int system,
                                                const std::string& turn,
                                                const std::string& answer_prefix);
  // What is wrong with such a prompt, of the place unless the turn could stand alone.
  absl::Status AtPrompt(const GivenPlace& place, int system, const std::string& turn,
                        const absl::Status& status) const;
  // What the engine has to say of what runs of the last item.
  absl::Status Check(const GivenPlace& place, const std::vector<std::string>& turns,
                     const AskingShape& shape);
  absl::Status CheckOne(const GivenPlace& place, int condition, const std::string& turn,
                        const engine::Request& request) const;
  absl::Status Count(const AskingShape& shape);

  const rpc::CallContext& context_;
  const services::ResolveOptions options_;
  const absl::Time now_;  // of templates
  EvaluationInputs inputs_;
  bool takes_system_message_ = false;
  std::vector<std::optional<std::string>> system_messages_;  // different ones
  // Condition, and lengths of prompt and what follows, that were checked.
  std::set<std::tuple<int, size_t, int64_t>> checked_;
  int64_t passes_ = 0, tokens_ = 0, generated_ = 0;
};

// Ids of items, or their numbers where they have none.
class ItemIds {
 public:
  // The id of the item given there, the number-th. INVALID_ARGUMENT naming its "id": too long, or
  // that of another item too.
  absl::StatusOr<std::string> Add(const GivenPlace& place, const std::string& id, int64_t number);
  bool any() const { return !ids_.empty(); }
  int64_t count() const { return static_cast<int64_t>(ids_.size()); }

 private:
  std::set<std::string> ids_;
};

// "{name}" must occur. INVALID_ARGUMENT naming `field`, also for a text that is too long or spells
// a control token of the model.
absl::Status CheckTemplate(absl::string_view field, const std::string& text,
                           const std::vector<std::string>& places,
                           const engine::ServedModel& model);

// `add` is called for each item of a request, inline or as an uploaded file of such messages:
// exactly one of the two. Errors name `list` or "artifact".
template <typename Item>
absl::Status ForEachItem(
    absl::string_view list, const google::protobuf::RepeatedPtrField<Item>& items,
    const std::string& artifact, std::initializer_list<absl::string_view> booleans,
    const rpc::CallContext& context, const Sources& sources, services::UsedResources& used,
    const std::function<absl::Status(const GivenPlace& place, const Item& item)>& add) {
  if (items.empty() == artifact.empty()) {
    return InvalidField(list, "must be given inline or as `artifact`, one of the two");
  }
  for (int i = 0; i < items.size(); ++i) {
    VS_RETURN_IF_ERROR(context.Why());
    VS_RETURN_IF_ERROR(add(GivenPlace::Inline(list, i), items[i]));
  }
  if (artifact.empty()) return absl::OkStatus();
  VS_ASSIGN_OR_RETURN(const services::ReadPiece read,
                      services::OpenDataSet("artifact", artifact, context.tenant, *sources.store,
                                            *sources.blobs, used));
  services::JsonLines lines("artifact", read);
  while (true) {
    VS_RETURN_IF_ERROR(context.Why());
    VS_ASSIGN_OR_RETURN(const std::optional<services::JsonLine> line, lines.Next());
    if (!line) return absl::OkStatus();
    Item item;
    VS_RETURN_IF_ERROR(lines.Parse(*line, booleans, item));
    VS_RETURN_IF_ERROR(add(GivenPlace::Line("artifact", line->number), item));
  }
}

}  // namespace valuescope::kinds

#endif  // VALUESCOPE_KINDS_EVALUATION_REQUEST_H_
