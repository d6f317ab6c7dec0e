#include "engine/sequence.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "engine/logit_row.h"
#include "engine/sampler.h"
#include "engine/token_scope.h"

namespace valuescope::engine {
namespace {

std::span<const std::string> StopsOf(const Request& request) {
  if (!request.sampling) return {};
  return request.sampling->stop;
}

}  // namespace

Sequence::Sequence(SequenceId id, Request request,
                   std::shared_ptr<const CompiledInterventions> interventions, SequenceTaps taps,
                   std::shared_ptr<Observer> observer, const text::TextModel& text, Leases leases,
                   std::vector<News>& news, UsageTally* usage)
    : id_(id),
      request_(std::move(request)),
      interventions_(std::move(interventions)),
      taps_(std::move(taps)),
      observer_(std::move(observer)),
      leases_(std::move(leases)),
      news_(news),
      usage_(usage),
      text_model_(text),
      ids_(request_.prompt),
      prefix_keys_(request_.tenant, kBlockSize),
      touched_(interventions_->interventions().size()),
      text_(text.tokenizer(), StopsOf(request_)),
      generating_(request_.sampling.has_value()) {
  ids_.insert(ids_.end(), request_.given_response.begin(), request_.given_response.end());
  new_keys_ = TakeNewKeys();  // now, on the caller's thread: a long prompt has many
}

int64_t Sequence::MostFed(const Request& request) {
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  if (request.sampling) {
    // The last generated token is fed only where a tap wants its activations.
    const bool wanted =
        std::any_of(request.taps.begin(), request.taps.end(),
                    [prompt](const Tap& tap) { return MayHoldGenerated(tap.tokens, prompt); });
    return prompt + request.sampling->max_tokens - (wanted ? 0 : 1);
  }
  const int64_t all = prompt + static_cast<int64_t>(request.given_response.size());
  // The last scored token predicts nothing that is asked for.
  return request.score_response && request.taps.empty() ? std::max(prompt, all - 1) : all;
}

int64_t Sequence::HostBytes(const Request& request) {
  // Token ids twice, and the keys of their blocks.
  constexpr int64_t kTokenBytes = 12;
  constexpr int64_t kLogprobBytes = sizeof(std::pair<int32_t, float>);
  const auto given = static_cast<int64_t>(request.prompt.size() + request.given_response.size());
  int64_t bytes = given * kTokenBytes;
  const auto add_drawn = [&](int64_t tokens, int64_t top) {
    bytes += tokens *
             (static_cast<int64_t>(sizeof(Generated)) + std::max<int64_t>(0, top) * kLogprobBytes);
  };
  if (request.sampling) {
    add_drawn(request.sampling->max_tokens, request.sampling->top_logprobs);
    for (const std::string& stop : request.sampling->stop) {
      bytes += static_cast<int64_t>(sizeof(stop) + stop.size());
    }
  }
  if (request.score_response) {
    add_drawn(static_cast<int64_t>(request.given_response.size()), request.top_logprobs);
  }
  for (const Tap& tap : request.taps) {
    // Positions as given and in a set; columns as an index.
    bytes += static_cast<int64_t>(tap.tokens.positions.size()) * 64;
    for (const auto& columns : tap.columns) {
      bytes += static_cast<int64_t>(columns.size() * 2 * sizeof(int64_t));
    }
  }
  return bytes;
}

int64_t Sequence::known() const {
  const int64_t all = static_cast<int64_t>(ids_.size());
  return generating_ || replaying_ ? all : std::min(all, MostFed(request_));
}

std::vector<BlockKey> Sequence::TakeNewKeys() {
  const auto steering = [this](int64_t position) -> std::string {
    if (interventions_->empty()) return "";
    return interventions_->ContentDigest(interventions_->ActiveAt(position));
  };
  std::vector<BlockKey> keys = std::exchange(new_keys_, {});
  for (BlockKey& key : prefix_keys_.Extend(ids_, steering)) keys.push_back(std::move(key));
  return keys;
}

int64_t Sequence::RunFrom() const {
  const int64_t scored =
      request_.score_response ? static_cast<int64_t>(request_.prompt.size()) - 1 : INT64_MAX;
  return std::min(scored, taps_.FirstRead());
}

Arrival Sequence::TakeArrival() {
  return {.id = id_,
          .known = known(),
          .max_fed = MostFed(request_),
          .background = request_.background,
          .tenant = request_.tenant,
          .client = request_.client,
          .keys = TakeNewKeys(),
          .run_from = RunFrom(),
          .reserves = !interventions_->empty(),
          .may_start_over =
              taps_.WantsGenerated() && request_.sampling && !request_.sampling->stop.empty()};
}

absl::StatusOr<bool> Sequence::AcquireRows(InterventionTables& tables) {
  if (refused_at_ == tables.given_up()) return false;
  VS_ASSIGN_OR_RETURN(std::optional<std::vector<int64_t>> rows,
                      tables.AcquireRows(*interventions_));
  if (!rows) {
    refused_at_ = tables.given_up();
    return false;
  }
  rows_ = *std::move(rows);
  return true;
}

void Sequence::Prepare(int64_t first, c10::Device device) {
  CountReceipts(fed_, first - fed_);
  if (!was_sent_back_) cached_prompt_tokens_ += first - fed_;
  if (leases_.tokens != nullptr) leases_.tokens->Begin();
  fed_ = first;
  if (!taps_.empty() && !taps_.allocated()) taps_.Reset(device);
}

int64_t Sequence::RowAt(int64_t position) const {
  return rows_.empty() ? 0 : rows_[interventions_->ActiveAt(position)];
}

void Sequence::ForgetRuns() {
  most_fed_ = std::max(most_fed_, fed_);
  fed_ = 0;
  scores_.clear();
  std::fill(touched_.begin(), touched_.end(), 0);
}

void Sequence::SendBack(InterventionTables& tables) {
  ForgetRuns();
  was_sent_back_ = true;
  taps_.Release();
  ReleaseRows(tables);
}

void Sequence::StartOver(int64_t fed) {
  ForgetRuns();
  starts_over_ = false;
  CountReceipts(0, fed);
  fed_ = fed;
}

void Sequence::ReleaseRows(InterventionTables& tables) {
  tables.ReleaseRows(rows_);
  rows_.clear();
}

bool Sequence::WantsLogits(int64_t position) const {
  if (replaying_) return false;
  if (generating_) return position == static_cast<int64_t>(ids_.size()) - 1;
  const int64_t prompt = static_cast<int64_t>(request_.prompt.size());
  return request_.score_response && position >= prompt - 1 &&
         position + 1 < static_cast<int64_t>(ids_.size());
}

void Sequence::CountReceipts(int64_t first, int64_t count) {
  if (interventions_->empty()) return;
  for (int64_t position = first; position < first + count; ++position) {
    const uint64_t active = interventions_->ActiveAt(position);
    for (size_t i = 0; i < touched_.size(); ++i)
      touched_[i] += static_cast<int64_t>(interventions_->Acts(active, i));
  }
}

void Sequence::ExpectLogits(size_t rows) {
  if (generating_) return;
  first_score_ = scores_.size();
  scores_.resize(first_score_ + rows);
}

absl::Status Sequence::ReadLogits(size_t row, std::span<const float> logits) {
  VS_RETURN_IF_ERROR(CheckFinite(logits));
  if (!generating_) {
    const size_t score = first_score_ + row;
    scores_[score] = LogprobOf(logits, ids_[request_.prompt.size() + score], request_.top_logprobs);
    return absl::OkStatus();
  }
  const Sampling& sampling = *request_.sampling;
  drawn_ = Generated{.id = SampleToken(logits, sampling, ids_, generated_tokens_), .logprob = {}};
  if (sampling.top_logprobs >= 0) {
    drawn_->logprob = LogprobOf(logits, drawn_->id, sampling.top_logprobs);
  }
  return absl::OkStatus();
}

bool Sequence::TakesLargest() const {
  if (!request_.sampling) return !request_.score_response;
  const Sampling& sampling = *request_.sampling;
  return sampling.temperature == 0 && sampling.repetition_penalty == 1 && sampling.top_logprobs < 0;
}

absl::Status Sequence::ReadLargest(int64_t id) {
  if (id < 0) return LogitsNotFinite();
  drawn_ = Generated{.id = static_cast<int32_t>(id), .logprob = {}};
  return absl::OkStatus();
}

void Sequence::Ran(int64_t first, int64_t count) {
  CountReceipts(first, count);
  fed_ = first + count;
  if (drawn_) {
    AcceptDrawn();
  } else if (!generating_ && fed_ >= known()) {
    done_ = true;
  }
}

bool Sequence::IsStopToken(int32_t id) const {
  const Sampling& sampling = *request_.sampling;
  if (std::find(sampling.stop_token_ids.begin(), sampling.stop_token_ids.end(), id) !=
      sampling.stop_token_ids.end()) {
    return true;
  }
  const std::vector<int32_t>& ends = text_model_.eos_ids();
  return !sampling.ignore_eos && std::binary_search(ends.begin(), ends.end(), id);
}

void Sequence::AcceptDrawn() {
  const Generated drawn = *std::exchange(drawn_, std::nullopt);
  ++generated_tokens_;
  if (leases_.tokens != nullptr) leases_.tokens->Generated(1);
  const bool stops = IsStopToken(drawn.id);
  if (!stops) {
    generated_.push_back(drawn);
    ids_.push_back(drawn.id);
    if (text_.Push(drawn.id)) return EndGeneration(FinishReason::kStop);
    if (generated_tokens_ < request_.sampling->max_tokens) return SendDelta();
  }
  // What stands for half a character may complete a stop string too.
  const bool cut = text_.Finish();
  EndGeneration(stops || cut ? FinishReason::kStop : FinishReason::kLength);
}

void Sequence::EndGeneration(FinishReason reason) {
  generating_ = false;
  finish_reason_ = reason;
  ids_.resize(ids_.size() - (generated_.size() - text_.settled_tokens()));
  generated_.resize(text_.settled_tokens());
  SendDelta();
  const int64_t returned = static_cast<int64_t>(ids_.size());
  const bool read = !taps_.empty() && taps_.WantsGenerated();
  if (read && fed_ < returned) {
    replaying_ = true;  // the last token runs once more, alone
    return;
  }
  if (read && fed_ > returned) {
    // Trimmed tokens are in the reductions already. A sum cannot forget them, so the returned
    // tokens that are read run once again; the same tokens give the same bits.
    replaying_ = true;
    starts_over_ = true;
    if (taps_.FirstRead() < returned) return;
  }
  if (fed_ > returned) {
    ForgetRuns();
    CountReceipts(0, returned);
    fed_ = returned;
  }
  done_ = true;
}

// Sends what can no longer change.
void Sequence::SendDelta() {
  Delta delta;
  delta.text = text_.text().substr(sent_text_, text_.settled_text() - sent_text_);
  sent_text_ = text_.settled_text();
  while (sent_tokens_ < text_.settled_tokens()) {
    Generated& token = generated_[sent_tokens_++];
    delta.token_ids.push_back(token.id);
    if (request_.sampling->top_logprobs >= 0) delta.logprobs.push_back(token.logprob);
  }
  if (!delta.text.empty() || !delta.token_ids.empty()) {
    news_.push_back({.observer = observer_, .what = std::move(delta)});
  }
}

Completion Sequence::TakeCompletion() {
  Completion completion;
  completion.text = text_.text();
  for (Generated& token : generated_) {
    completion.token_ids.push_back(token.id);
    if (request_.sampling->top_logprobs >= 0)
      completion.logprobs.push_back(std::move(token.logprob));
  }
  if (!request_.sampling) completion.logprobs = std::move(scores_);
  completion.finish_reason = finish_reason_;
  for (size_t i = 0; i < touched_.size(); ++i) {
    completion.receipts.push_back({.intervention_index = static_cast<int>(i),
                                   .layers = interventions_->interventions()[i].layers,
                                   .positions = touched_[i]});
  }
  if (!taps_.empty()) completion.captures = taps_.Read();
  completion.prompt_tokens =
      static_cast<int64_t>(request_.prompt.size() + request_.given_response.size());
  completion.cached_prompt_tokens = cached_prompt_tokens_;
  completion.generated_tokens = generated_tokens_;
  completion.memory = std::move(leases_.captures);
  return completion;
}

// What runs anew counts once.
void Sequence::CountUsage() {
  if (usage_ == nullptr) return;
  const auto given = static_cast<int64_t>(request_.prompt.size() + request_.given_response.size());
  usage_->CountTokens(request_.tenant, std::min(given, std::max(most_fed_, fed_)),
                      generated_tokens_);
}

void Sequence::Tell(absl::StatusOr<Completion> completion) {
  CountUsage();
  news_.push_back({.observer = std::move(observer_), .what = std::move(completion)});
}

}  // namespace valuescope::engine
