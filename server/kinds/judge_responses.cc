// The kind "judge_responses": responses labelled by words or by a served model, or graded by one
// (services/judges.h).
// A unit is a response; one that is empty is nobody's to judge. Partial: SavedJudgements.
//
// Left by a job: "responses", JSON Lines of LabelledResponse as they came, with their labels, those
// of one value where the request names it;
// "summary", JSON with the judgements and the provenance, nothing of time or place.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "kinds/kinds.h"
#include "kinds/response_work.h"
#include "kinds/saved_model.h"
#include "kinds/texts_work.h"
#include "nlohmann/json.hpp"
#include "services/data_set_lines.h"
#include "services/idempotency.h"
#include "services/judges.h"
#include "services/prompt_codec.h"
#include "services/request_codec.h"
#include "services/value_labels.h"
#include "studies/json_fields.h"
#include "studies/message_json.h"
#include "valuescope/v1/evaluation.pb.h"

namespace valuescope::kinds {
namespace {

using nlohmann::json;
using Request = v1::JudgeResponsesRequest;

constexpr char kName[] = "judge_responses";
constexpr int64_t kJudgedPerChunk = 32;
constexpr int64_t kJudgedPerShard = 32 * kJudgedPerChunk;

// --- The outcome ---------------------------------------------------------------------------------

// Everything but what they were made of and what that cost.
v1::JudgeResponsesResponse Summarised(const SavedJudgements& judgements) {
  v1::JudgeResponsesResponse response;
  *response.mutable_judgements() = judgements.judgements();
  int64_t labelled = 0, expressing = 0, graded = 0, asked = 0;
  double grades = 0, mass = 0;
  for (const v1::Judgement& one : judgements.judgements()) {
    labelled += one.has_expresses();
    expressing += one.expresses();
    graded += one.has_grade();
    grades += one.grade();
    asked += one.has_label_mass();
    mass += one.label_mass();
  }
  if (labelled > 0) {
    response.set_expressing_share(static_cast<double>(expressing) / static_cast<double>(labelled));
  }
  if (graded > 0) response.set_mean_grade(grades / static_cast<double>(graded));
  if (asked == 0) return response;
  response.set_label_mass(mass / static_cast<double>(asked));
  if (response.label_mass() >= services::kLeastAnswerMass) return response;
  response.add_warnings(absl::StrFormat(
      "the judge answers with one of the labels with a probability of %.2g on average: it says "
      "something else, and its judgements mean little",
      response.label_mass()));
  return response;
}

class JudgementsOutcome : public jobs::Outcome {
 public:
  JudgementsOutcome(const SavedJudgements& judgements, ResponseInputs inputs)
      : result(Summarised(judgements)), inputs_(std::move(inputs)) {}

  absl::StatusOr<std::vector<store::Resource>> Resources(store::BlobStore&) const override {
    return std::vector<store::Resource>();
  }
  absl::StatusOr<std::vector<jobs::ArtifactDraft>> Artifacts(
      store::BlobStore& blobs) const override {
    const v1::Provenance& provenance = inputs_.record.provenance();
    json summary = Described();
    summary["judgements"] = studies::ListToJson(result.judgements());
    std::vector<jobs::ArtifactDraft> artifacts;
    VS_ASSIGN_OR_RETURN(artifacts.emplace_back(),
                        MakeSummary(blobs, std::move(summary), provenance));
    VS_ASSIGN_OR_RETURN(store::StoredBlob lines, WriteLines(blobs));
    artifacts.push_back(ArtifactOf(std::move(lines), "responses", "responses.jsonl",
                                   services::kDataSetMediaType, provenance));
    return artifacts;
  }
  std::string Summary(const std::vector<store::Resource>&) const override {
    return studies::DumpJson(Described());
  }

  const v1::JudgeResponsesResponse result;  // without usage and digests

 private:
  json Described() const {
    json summary = {
        {"format_version", kSummaryVersion},
        {"num_responses", result.judgements_size()},
        {"warnings", std::vector<std::string>(result.warnings().begin(), result.warnings().end())}};
    if (result.has_expressing_share()) summary["expressing_share"] = result.expressing_share();
    if (result.has_mean_grade()) summary["mean_grade"] = result.mean_grade();
    if (result.has_label_mass()) summary["label_mass"] = result.label_mass();
    return summary;
  }

  absl::StatusOr<store::StoredBlob> WriteLines(store::BlobStore& blobs) const {
    VS_ASSIGN_OR_RETURN(const std::unique_ptr<store::BlobWriter> writer, blobs.NewWriter());
    for (int i = 0; i < result.judgements_size(); ++i) {
      v1::LabelledResponse line = inputs_.texts->texts(i).given();
      if (result.judgements(i).has_expresses()) Label(result.judgements(i).expresses(), line);
      VS_RETURN_IF_ERROR(writer->Append(JsonLineOf(line)));
    }
    return writer->Finish();
  }

  void Label(bool expresses, v1::LabelledResponse& line) const {
    const std::string& value = inputs_.record.judge_responses().value();
    if (value.empty()) {
      line.set_expresses(expresses);
    } else {
      services::SetValueLabel(value, expresses, line);
    }
  }

  const ResponseInputs inputs_;
};

// --- The work ------------------------------------------------------------------------------------

class JudgingWork : public TextsWork<SavedJudgements, &SavedJudgements::judgements_size> {
 public:
  JudgingWork(ResponseInputs inputs, std::unique_ptr<const services::Judge> judge)
      : TextsWork(std::move(inputs), kJudgedPerChunk), judge_(std::move(judge)) {}

 protected:
  absl::Status AddUnits(const jobs::UnitRange& units, const Cancellation& cancellation,
                        Units& sums) override {
    std::vector<services::Answered> asked;
    std::vector<int> places;
    for (int64_t unit = units.first; unit < units.end; ++unit) {
      const SavedText& judged = text(unit);
      v1::Judgement& judgement = *sums.saved.add_judgements();
      if (labels()) judgement.set_expresses(false);
      if (judged.text().empty()) continue;
      asked.push_back({.query = judged.query(), .response = judged.text()});
      places.push_back(sums.saved.judgements_size() - 1);
    }
    VS_ASSIGN_OR_RETURN(const std::vector<services::Judgement> answers,
                        judge_->Label(asked, JudgedFor(cancellation), usage_));
    for (size_t i = 0; i < answers.size(); ++i) {
      v1::Judgement& judgement = *sums.saved.mutable_judgements(places[i]);
      if (labels()) judgement.set_expresses(answers[i].expresses);
      if (answers[i].answer) {
        judgement.set_probability(answers[i].answer->probability);
        judgement.set_label_mass(answers[i].answer->mass);
      }
      if (answers[i].grade) {
        judgement.set_grade(answers[i].grade->expected);
        judgement.set_label_mass(answers[i].grade->mass);
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<jobs::Outcome>> FinishSums(const Units& whole,
                                                            const Cancellation&) override {
    return std::make_unique<JudgementsOutcome>(whole.saved, inputs_);
  }

 private:
  bool labels() const { return inputs_.record.judge_responses().has_judge(); }

  const std::unique_ptr<const services::Judge> judge_;
};

// As a request or stored work has it.
template <typename Message>
absl::StatusOr<std::unique_ptr<const services::Judge>> JudgeOf(
    const Message& message, std::shared_ptr<const engine::ServedModel> model, absl::Time now) {
  if (message.has_grade()) {
    return services::GradeFromProto("grade", message.grade(), std::move(model), now);
  }
  if (message.judge().judge_case() == v1::Judge::JUDGE_NOT_SET) {
    return InvalidField("judge", "must be a word_list or a rubric, or else `grade` must be set");
  }
  return services::JudgeFromProto("judge", message.judge(), std::move(model), now);
}

// --- The request ---------------------------------------------------------------------------------

// The text of a message of a conversation.
std::string TextOf(const v1::Message& message) {
  std::string text = message.content();
  for (const v1::ContentPart& part : message.content_parts().parts()) text += part.text();
  return text;
}

// Responses as the judge reads them.
class JudgedReader {
 public:
  // `model` reads token ids; may be null. `value` is the one that will be labelled, if it has a
  // name.
  JudgedReader(std::shared_ptr<const engine::ServedModel> model, const std::string& value,
               const rpc::CallContext& context)
      : model_(std::move(model)), value_(value), context_(context) {}

  absl::Status Add(const std::string& place, const v1::LabelledResponse& given) {
    if (!value_.empty()) {
      VS_RETURN_IF_ERROR(services::CheckRoomForLabel(place, given, value_));
    }
    SavedText& text = *texts_.add_texts();
    *text.mutable_given() = given;
    VS_ASSIGN_OR_RETURN(*text.mutable_query(),
                        QueryOf(absl::StrCat(place, ".prompt"), given.prompt()));
    VS_ASSIGN_OR_RETURN(*text.mutable_text(),
                        ResponseOf(absl::StrCat(place, ".response"), given.response()));
    digest_.Update(Sha256Hex(services::DeterministicBytes(text)));
    const size_t bytes = text.query().size() + text.text().size();
    if (bytes >= longest_bytes_) {
      longest_bytes_ = bytes;
      longest_ = texts_.texts_size() - 1;
    }
    return context_.Hold(static_cast<int64_t>(text.SpaceUsedLong()));
  }

  const SavedText& longest() const { return texts_.texts(longest_); }
  std::string Digest() { return digest_.HexDigest(); }
  SavedTexts Take() { return std::move(texts_); }

 private:
  absl::StatusOr<std::string> QueryOf(const std::string& field, const v1::Prompt& prompt) const {
    switch (prompt.prompt_case()) {
      case v1::Prompt::kText:
        return prompt.text();
      case v1::Prompt::kTokenIds:
        return Spelled(field, prompt.token_ids());
      case v1::Prompt::kChat: {
        const auto& messages = prompt.chat().messages();
        for (auto message = messages.rbegin(); message != messages.rend(); ++message) {
          if (message->role() == "user") return TextOf(*message);
        }
        return InvalidField(absl::StrCat(field, ".chat.messages"), "must have a user's turn");
      }
      case v1::Prompt::PROMPT_NOT_SET:
        break;
    }
    return InvalidField(field, "is required: text, chat or token_ids");
  }

  absl::StatusOr<std::string> ResponseOf(const std::string& field,
                                         const v1::Response& response) const {
    if (response.has_text()) return response.text();
    if (response.has_token_ids()) return Spelled(field, response.token_ids());
    return InvalidField(field, "is required: text or token_ids");
  }

  absl::StatusOr<std::string> Spelled(const std::string& field, const v1::TokenIds& ids) const {
    if (model_ == nullptr) {
      return InvalidField("model", absl::StrCat("is required: `", field, "` is token ids"));
    }
    v1::Response response;
    *response.mutable_token_ids() = ids;
    VS_ASSIGN_OR_RETURN(const std::vector<int32_t> checked,
                        services::ResponseFromProto(field, response, *model_));
    return model_->text->tokenizer().Decode(checked, /*skip_special_tokens=*/true);
  }

  const std::shared_ptr<const engine::ServedModel> model_;
  const std::string& value_;
  const rpc::CallContext& context_;
  SavedTexts texts_;
  Sha256 digest_;
  size_t longest_bytes_ = 0;
  int longest_ = 0;
};

class JudgeResponsesKind
    : public TextsKind<Request, v1::JudgeResponsesResponse, JudgingWork, JudgementsOutcome> {
 public:
  explicit JudgeResponsesKind(const Sources& sources)
      : TextsKind(sources, SavedWork::kJudgeResponses) {}

  absl::string_view Name() const override { return kName; }

 protected:
  absl::StatusOr<std::unique_ptr<jobs::Work>> OpenWork(ResponseInputs inputs) const override {
    const SavedJudging& of = inputs.record.judge_responses();
    Model asked;
    if (!inputs.record.model().empty()) {
      VS_ASSIGN_OR_RETURN(asked, inputs.Model());
    }
    if (asked == nullptr && !of.judge().has_word_list()) return jobs::PartialDamaged();
    VS_ASSIGN_OR_RETURN(auto judge,
                        JudgeOf(of, std::move(asked), absl::FromUnixSeconds(of.judge_time())));
    return std::make_unique<JudgingWork>(std::move(inputs), std::move(judge));
  }

  absl::StatusOr<services::ResolvedWork> Resolved(
      const Request& request, const rpc::CallContext& context,
      const services::ResolveOptions& options) override {
    services::ResolvedWork resolved;
    VS_RETURN_IF_ERROR(CheckValue(request));
    VS_ASSIGN_OR_RETURN(const Model held, JudgeModelOf(request, resolved.used));
    const absl::Time now = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()));
    VS_ASSIGN_OR_RETURN(auto judge, JudgeOf(request, held, now));
    VS_ASSIGN_OR_RETURN(const auto reading, ReadingModelOf(request, resolved.used));
    JudgedReader reader(reading, request.value(), context);
    VS_RETURN_IF_ERROR(Read(request, context, options, resolved.used, reader));
    resolved.used[studies::kResponsesInput] = reader.Digest();
    VS_ASSIGN_OR_RETURN(const int64_t tokens, MostTokens(*judge, reader.longest()));
    ResponseInputs inputs = InputsOfTexts(
        reader.Take(), kJudgedPerShard,
        held == nullptr ? SavedWork() : RecordOf(*held, request.display_name(), options), held,
        context, sources_);
    SavedWork& record = inputs.record;
    record.set_format_version(kSavedWorkOfValues);  // where no model wrote it
    SavedJudging& of = *record.mutable_judge_responses();
    if (request.has_judge()) *of.mutable_judge() = request.judge();
    if (request.has_grade()) *of.mutable_grade() = request.grade();
    of.set_judge_time(absl::ToUnixSeconds(now));
    of.set_value(request.value());
    *record.mutable_provenance() = ProvenanceOfJudging(request, inputs, *judge, resolved.used);
    if (!options.at_once) VS_RETURN_IF_ERROR(CheckStorable(inputs, context));
    resolved.estimate = EstimateOfJudging(inputs, tokens);
    resolved.needs = inputs.needs();
    resolved.work = std::make_unique<JudgingWork>(std::move(inputs), std::move(judge));
    return resolved;
  }

  void Answered(const Request&, const services::ResolvedWork& resolved, const JudgingWork& work,
                const JudgementsOutcome& outcome, const std::vector<store::Resource>&,
                v1::JudgeResponsesResponse& response) const override {
    response = outcome.result;
    *response.mutable_usage() = work.usage();
    *response.mutable_digests() = services::InputsOf(resolved.used);
  }

 private:
  using Model = std::shared_ptr<const engine::ServedModel>;

  static absl::Status CheckValue(const Request& request) {
    if (request.has_grade() && !request.value().empty()) {
      return InvalidField("value", "must be unset with `grade`, which labels nothing");
    }
    return services::CheckValueName("value", request.value());
  }

  absl::StatusOr<Model> NamedModel(absl::string_view field, const std::string& name,
                                   services::UsedResources& used) const {
    VS_ASSIGN_OR_RETURN(Model model, services::ModelOfName(field, name, *sources_.models));
    used[absl::StrCat("models/", model->id)] = model->weights_digest;
    return model;
  }

  // Null where words judge.
  absl::StatusOr<Model> JudgeModelOf(const Request& request, services::UsedResources& used) const {
    if (request.has_grade()) return NamedModel("grade.model", request.grade().model(), used);
    if (!request.judge().has_rubric()) return Model();
    return NamedModel("judge.rubric.model", request.judge().rubric().model(), used);
  }

  // Null where the request names none.
  absl::StatusOr<Model> ReadingModelOf(const Request& request,
                                       services::UsedResources& used) const {
    if (request.model().empty()) return Model();
    return NamedModel("model", request.model(), used);
  }

  // Of the judge's for the longest of the texts; 0 where words judge.
  static absl::StatusOr<int64_t> MostTokens(const services::Judge& judge, const SavedText& text) {
    return judge.MostTokens(absl::StrCat(text.query(), text.text()), /*tokens=*/0);
  }

  static v1::Provenance ProvenanceOfJudging(const Request& request, const ResponseInputs& inputs,
                                            const services::Judge& judge,
                                            const services::UsedResources& used) {
    v1::Provenance provenance;
    if (inputs.held != nullptr) {
      provenance = studies::ProvenanceOf(*inputs.held, /*rendered_chat=*/true);
    }
    provenance.set_judge(judge.Description());
    *provenance.mutable_inputs() = services::InputsOf(used, request.artifact());
    provenance.set_options(
        studies::RecordOfRequest(request, {"model", "responses", "artifact", "display_name"}));
    return provenance;
  }

  static services::WorkEstimate EstimateOfJudging(const ResponseInputs& inputs,
                                                  int64_t most_tokens) {
    const int64_t count = inputs.record.num_responses();
    const auto bytes = static_cast<int64_t>(inputs.texts->ByteSizeLong());
    if (inputs.held == nullptr) return {.bytes = bytes};
    return EstimateOf(*inputs.held, count * most_tokens, count, bytes);
  }
};

}  // namespace

std::unique_ptr<services::Kind> JudgeResponses(const Sources& sources) {
  return std::make_unique<JudgeResponsesKind>(sources);
}

}  // namespace valuescope::kinds
