#include "kinds/evaluation_work.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/error.h"
#include "services/idempotency.h"
#include "services/intervention_codec.h"
#include "services/result_codec.h"
#include "studies/labelled_responses.h"

namespace valuescope::kinds {
namespace {

// Enough to fill batches, few enough that little is lost where a server is killed.
constexpr int64_t kReadingsPerChunk = 128;
constexpr int64_t kChunksPerShard = 8;
constexpr int64_t kMostShards = 1024;

int64_t ItemsPerChunk(int readings_per_item) {
  return std::max<int64_t>(1, kReadingsPerChunk / readings_per_item);
}

bool IsWhole(const EvaluationInputs& inputs) {
  const SavedEvaluation& how = inputs.how();
  const int prompts = how.num_system_messages() * how.num_forms();
  if (how.conditions().empty() || prompts < 1 || how.num_forms() < 1 ||
      how.bytes_per_reading() < 0 || inputs.items.items_size() != inputs.record.num_responses()) {
    return false;
  }
  for (const SavedEvaluationCondition& condition : how.conditions()) {
    if (condition.system_message() < 0 || condition.system_message() >= how.num_system_messages()) {
      return false;
    }
  }
  return std::all_of(inputs.items.items().begin(), inputs.items.items().end(),
                     [&](const SavedItem& item) { return item.prompts_size() == prompts; });
}

SavedReceipts Saved(const std::vector<engine::Receipt>& receipts) {
  SavedReceipts saved;
  for (const engine::Receipt& one : receipts) *saved.add_receipts() = services::ReceiptToProto(one);
  return saved;
}

// `sums` has as many or none.
void AddReceipts(const SavedReceipts& more, SavedReceipts& sums) {
  for (int i = 0; i < more.receipts_size(); ++i) {
    const v1::InterventionReceipt& receipt = more.receipts(i);
    if (sums.receipts_size() == i) {
      *sums.add_receipts() = receipt;
      continue;
    }
    v1::InterventionReceipt& sum = *sums.mutable_receipts(i);
    if (sum.layers().empty()) *sum.mutable_layers() = receipt.layers();
    sum.set_positions(sum.positions() + receipt.positions());
  }
}

}  // namespace

absl::Status SpecDamaged() {
  return ErrorWithReason(absl::StatusCode::kDataLoss, "METADATA_DAMAGED",
                         "the stored spec of a job is damaged");
}

// --- Inputs --------------------------------------------------------------------------------------

absl::StatusOr<std::shared_ptr<const engine::ServedModel>> EvaluationInputs::Model() const {
  if (held != nullptr) return held;
  return ModelOfRecord(record, *models);
}

engine::Request EvaluationInputs::RequestOf(const SavedItem& item, int condition, int form) const {
  const int system_message = how().conditions(condition).system_message();
  const auto& ids = item.prompts(system_message * how().num_forms() + form).ids();
  engine::Request request;
  request.tenant = tenant;
  request.background = background();
  request.prompt.assign(ids.begin(), ids.end());
  request.prepared = conditions[static_cast<size_t>(condition)];
  return request;
}

jobs::Extent EvaluationInputs::extent() const {
  return {.units = record.num_responses(),
          .units_per_shard = record.responses_per_shard(),
          .units_per_chunk =
              std::min(ItemsPerChunk(readings_per_item()), record.responses_per_shard())};
}

absl::StatusOr<jobs::SavedWork> EvaluationInputs::Save(store::BlobStore& blobs) const {
  VS_ASSIGN_OR_RETURN(const store::StoredBlob data_set,
                      store::WriteBlob(blobs, services::DeterministicBytes(items)));
  SavedWork saved = record;
  saved.set_data_set(data_set.digest);
  return jobs::SavedWork{.spec = services::DeterministicBytes(saved), .blobs = {data_set.digest}};
}

absl::StatusOr<EvaluationInputs> EvaluationInputs::Open(const Sources& sources,
                                                        absl::string_view tenant,
                                                        absl::string_view spec,
                                                        SavedWork::KindCase kind) {
  EvaluationInputs inputs{.tenant = std::string(tenant), .models = sources.models};
  VS_ASSIGN_OR_RETURN(inputs.record, ParseSavedWork(spec));
  VS_RETURN_IF_ERROR(CheckRecord(inputs.record, kind));
  VS_ASSIGN_OR_RETURN(const auto model, inputs.Model());
  VS_ASSIGN_OR_RETURN(
      const std::string bytes,
      store::ReadBlob(*sources.blobs, inputs.record.data_set(), studies::kMaxDataSetBytes));
  if (!inputs.items.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      !IsWhole(inputs)) {
    return SpecDamaged();
  }
  services::UsedResources used;
  for (const SavedEvaluationCondition& condition : inputs.how().conditions()) {
    VS_ASSIGN_OR_RETURN(
        inputs.conditions.emplace_back(),
        services::PreparedFromProto(condition.interventions(),
                                    {inputs.tenant, *model, *sources.vectors}, used));
  }
  return inputs;
}

int64_t ItemsPerShard(int64_t items, int readings_per_item) {
  const int64_t per_chunk = ItemsPerChunk(readings_per_item);
  const int64_t chunks = (items + per_chunk - 1) / per_chunk;
  const int64_t chunks_per_shard = (chunks + kMostShards - 1) / kMostShards;
  return std::max(kChunksPerShard, chunks_per_shard) * per_chunk;
}

absl::StatusOr<engine::KeptCaptures> MemoryFor(const EvaluationInputs& inputs,
                                               engine::Engine& engine, bool can_wait) {
  const int64_t readings = inputs.record.num_responses() * inputs.readings_per_item();
  return KeptFor(engine, readings * inputs.how().bytes_per_reading(), can_wait);
}

absl::Status CheckStorable(const EvaluationInputs& inputs, const rpc::CallContext& context) {
  VS_RETURN_IF_ERROR(CheckRecordSize(inputs.record));
  const auto bytes = static_cast<int64_t>(inputs.items.ByteSizeLong());
  if (bytes <= studies::kMaxDataSetBytes) return context.Hold(bytes);
  return NeverFits("DATA_SET_TOO_LARGE",
                   absl::StrCat("the items and their prompts take ", bytes,
                                " bytes, allowed are at most ", studies::kMaxDataSetBytes));
}

// --- Answers -------------------------------------------------------------------------------------

std::string EvaluationAnswers::Serialize() const { return services::DeterministicBytes(answers); }

absl::StatusOr<std::vector<Answer>> AnswersOf(
    absl::StatusOr<std::vector<services::LabelReading>> readings, bool with_text) {
  if (!readings.ok()) return readings.status();
  std::vector<Answer> answers;
  for (services::LabelReading& reading : *readings) {
    Answer& answer = answers.emplace_back();
    answer.reading.mutable_numbers()->Assign(reading.probabilities.begin(),
                                             reading.probabilities.end());
    answer.reading.set_mass(reading.mass);
    if (with_text) answer.reading.set_text(std::move(reading.text));
    answer.receipts = std::move(reading.receipts);
  }
  return answers;
}

absl::StatusOr<std::vector<Answer>> ScoreContinuations(const engine::ServedModel& model,
                                                       std::vector<Asking> askings,
                                                       const Cancellation& cancellation,
                                                       v1::Usage& usage) {
  std::vector<Answer> answers(askings.size());
  std::vector<engine::Request> requests;
  std::vector<std::pair<size_t, int>> places;  // asking and continuation of a request
  for (size_t i = 0; i < askings.size(); ++i) {
    const auto& continuations = askings[i].item->continuations();
    answers[i].reading.mutable_numbers()->Resize(continuations.size(), 0);
    for (int k = 0; k < continuations.size(); ++k) {
      engine::Request& request = requests.emplace_back(askings[i].request);
      request.given_response.assign(continuations[k].ids().begin(), continuations[k].ids().end());
      request.score_response = true;
      places.emplace_back(i, k);
    }
  }
  const auto take = [&](size_t index, engine::Completion completion) {
    const auto [asking, continuation] = places[index];
    services::AddUsage(completion, usage);
    services::AddReceipts(completion.receipts, answers[asking].receipts);
    answers[asking].reading.set_numbers(continuation, services::SumOfLogprobs(completion));
    return absl::OkStatus();
  };
  VS_RETURN_IF_ERROR(engine::RunEach(*model.engine, std::move(requests), cancellation, take));
  return answers;
}

// --- The work ------------------------------------------------------------------------------------

bool EvaluationWork::IsWhole(const SavedAnswers& answers) const {
  if (answers.items_size() > inputs_.items.items_size()) return false;
  if (answers.receipts_size() != (answers.items().empty() ? 0 : inputs_.how().conditions_size())) {
    return false;
  }
  for (const SavedReadings& item : answers.items()) {
    if (item.readings_size() != inputs_.readings_per_item()) return false;
  }
  return true;
}

absl::StatusOr<EvaluationAnswers> EvaluationWork::ParseSums(absl::string_view bytes, int64_t done,
                                                            int64_t) {
  EvaluationAnswers sums;
  if (!sums.answers.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      sums.answers.items_size() != done || !IsWhole(sums.answers)) {
    return jobs::PartialDamaged();
  }
  return sums;
}

absl::Status EvaluationWork::AddUnits(const jobs::UnitRange& units,
                                      const Cancellation& cancellation, EvaluationAnswers& sums) {
  VS_ASSIGN_OR_RETURN(const auto model, inputs_.Model());
  const int num_conditions = inputs_.how().conditions_size(), num_forms = inputs_.how().num_forms();
  std::vector<Asking> askings;
  for (int64_t unit = units.first; unit < units.end; ++unit) {
    const SavedItem& item = inputs_.items.items(static_cast<int>(unit));
    for (int c = 0; c < num_conditions; ++c) {
      for (int form = 0; form < num_forms; ++form) {
        askings.push_back({.item = &item, .request = inputs_.RequestOf(item, c, form)});
      }
    }
  }
  VS_ASSIGN_OR_RETURN(std::vector<Answer> answers,
                      Ask(*model, std::move(askings), cancellation, usage_));
  while (sums.answers.receipts_size() < num_conditions) sums.answers.add_receipts();
  auto answer = answers.begin();
  for (int64_t unit = units.first; unit < units.end; ++unit) {
    SavedReadings& item = *sums.answers.add_items();
    for (int reading = 0; reading < inputs_.readings_per_item(); ++reading, ++answer) {
      AddReceipts(Saved(answer->receipts), *sums.answers.mutable_receipts(reading / num_forms));
      *item.add_readings() = std::move(answer->reading);
    }
  }
  return absl::OkStatus();
}

absl::Status EvaluationWork::AddShard(const EvaluationAnswers& shard, EvaluationAnswers& whole) {
  whole.answers.mutable_items()->Add(shard.answers.items().begin(), shard.answers.items().end());
  for (int c = 0; c < shard.answers.receipts_size(); ++c) {
    if (whole.answers.receipts_size() == c) whole.answers.add_receipts();
    AddReceipts(shard.answers.receipts(c), *whole.answers.mutable_receipts(c));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<jobs::Outcome>> EvaluationWork::FinishSums(
    const EvaluationAnswers& whole, const Cancellation&) {
  if (whole.answers.items_size() != inputs_.items.items_size() || !IsWhole(whole.answers)) {
    return jobs::PartialDamaged();
  }
  for (int i = 0; i < whole.answers.items_size(); ++i) {
    for (const SavedReading& reading : whole.answers.items(i).readings()) {
      if (reading.numbers_size() != NumbersOf(inputs_.items.items(i))) {
        return jobs::PartialDamaged();
      }
    }
  }
  return FinishAnswers(whole.answers);
}

}  // namespace valuescope::kinds
