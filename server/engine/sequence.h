// One request while it runs: its tokens, what was fed of them, and what it owes its observer. Only
// the engine's thread touches it.
#ifndef VALUESCOPE_ENGINE_SEQUENCE_H_
#define VALUESCOPE_ENGINE_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/cancellation.h"
#include "base/memory_ledger.h"
#include "base/usage_tally.h"
#include "engine/courier.h"
#include "engine/engine.h"
#include "engine/generated_text.h"
#include "engine/intervention_table.h"
#include "engine/prefix_keys.h"
#include "engine/request.h"
#include "engine/scheduler.h"
#include "engine/taps.h"
#include "engine/token_quotas.h"
#include "text/text_model.h"

namespace valuescope::engine {

class Sequence {
 public:
  // What a sequence holds of the engine's memory and of its tenant's tokens.
  struct Leases {
    std::shared_ptr<const MemoryLedger::Lease> request;
    std::shared_ptr<const MemoryLedger::Lease> captures;
    std::unique_ptr<TokenQuotas::Charge> tokens;  // null: nothing bounds them
  };

  // `request` was validated: interventions, which others may share, and taps are compiled. What the
  // observer is to be told goes to the end of `news`, and what the sequence used by then counts in
  // `usage`; null: nobody counts it.
  Sequence(SequenceId id, Request request,
           std::shared_ptr<const CompiledInterventions> interventions, SequenceTaps taps,
           std::shared_ptr<Observer> observer, const text::TextModel& text, Leases leases,
           std::vector<News>& news, UsageTally* usage = nullptr);

  // Host memory that a request takes at most from its admission to its end, without what others
  // share with it.
  static int64_t HostBytes(const Request& request);

  // Tokens that a request may feed in all: prompt, response, and the last generated token where a
  // tap wants it.
  static int64_t MostFed(const Request& request);

  SequenceId id() const { return id_; }
  const Request& request() const { return request_; }
  const CompiledInterventions& interventions() const { return *interventions_; }
  SequenceTaps& taps() { return taps_; }
  bool has_taps() const { return !taps_.empty(); }
  const std::vector<int32_t>& ids() const { return ids_; }
  int64_t fed() const { return fed_; }

  // Tokens that may be fed now. The last token of a scored response predicts nothing that is asked
  // for and stays out.
  int64_t known() const;

  // How this sequence is to be scheduled, before it first runs.
  Arrival TakeArrival();
  // The keys of full blocks of its tokens that became known since.
  std::vector<BlockKey> TakeNewKeys();

  // A copy of the flag cancels; it does not keep the sequence and its results alive.
  Cancellation cancellation() const { return cancellation_; }
  bool cancelled() const { return cancellation_.cancelled(); }

  // Acquires the intervention rows that running it may take; false, and nothing is held, where the
  // tables have no room. Costs nothing where no room was made since it last said so. Errors and
  // what it throws: InterventionTables::AcquireRows.
  absl::StatusOr<bool> AcquireRows(InterventionTables& tables);
  // Whether it may run: the rows that it acquired are written.
  bool HasRows(const InterventionTables& tables) const { return tables.Written(rows_); }
  // Whether one of its rows is among those that are written next.
  bool AwaitsNextWrite(const InterventionTables& tables) const {
    return tables.AwaitsNextWrite(rows_);
  }
  // Takes note that positions from `first` on run, and allocates the captures' destinations. What
  // lies before `first` is in the cache, made under the same interventions. Throws where memory
  // ends.
  void Prepare(int64_t first, c10::Device device);
  // Intervention row of the token at `position`.
  int64_t RowAt(int64_t position) const;
  void ReleaseRows(InterventionTables& tables);

  // The scheduler sent the sequence back: it gives back what it acquired to run and runs from token
  // 0 again. What it sampled stays, so its observer hears nothing twice.
  void SendBack(InterventionTables& tables);

  // Whether the logits of the token at `position` are needed, to sample or to score what follows
  // it.
  bool WantsLogits(int64_t position) const;

  // Tokens at or behind this position are not read by taps: they were trimmed.
  int64_t TapEnd() const { return replaying_ ? static_cast<int64_t>(ids_.size()) : INT64_MAX; }

  // Announces `rows` rows of logits: those of the step's positions that want some, in order.
  void ExpectLogits(size_t rows);
  // Draws the next token from row `row` of those that were announced, [vocabulary], or scores what
  // was given behind it. Most of what a step costs the host is here, and nothing but this row's
  // result is touched: the rows of a step, of one sequence or of many, may be read at the same
  // time. FAILED_PRECONDITION, reason LOGITS_NOT_FINITE, where there are no numbers to sample or
  // score from.
  absl::Status ReadLogits(size_t row, std::span<const float> logits);

  // Whether it takes at most one row of logits a step, and from that the likeliest token only.
  bool TakesLargest() const;
  // The same as ReadLogits where that holds: the id of the largest logit, -1 where some are no
  // numbers.
  absl::Status ReadLargest(int64_t id);

  // Takes note that positions first .. first + count - 1 ran and their logits were read.
  void Ran(int64_t first, int64_t count);

  // Everything was fed and sampled: Finish may be called.
  bool done() const { return done_; }
  // Taps read tokens that a stop string trimmed: they are to be emptied, and where this is not
  // done, the scheduler starts over and the sequence goes on from `fed`.
  bool starts_over() const { return starts_over_; }
  void StartOver(int64_t fed);

  int64_t generated_tokens() const { return generated_tokens_; }

  // The result of a sequence that is done; takes what it consists of. Throws where memory ends.
  Completion TakeCompletion();
  // The observer is to be told the result, or why there is none, and let go of. Once.
  void Tell(absl::StatusOr<Completion> completion);

 private:
  struct Generated {
    int32_t id = 0;
    TokenLogprob logprob;
  };

  // First position whose run somebody needs to see besides the last known one.
  int64_t RunFrom() const;
  void ForgetRuns();
  void CountUsage();
  void CountReceipts(int64_t first, int64_t count);
  void AcceptDrawn();
  bool IsStopToken(int32_t id) const;
  void EndGeneration(FinishReason reason);
  void SendDelta();

  SequenceId id_;
  Request request_;
  std::shared_ptr<const CompiledInterventions> interventions_;
  SequenceTaps taps_;
  std::shared_ptr<Observer> observer_;
  Leases leases_;
  std::vector<News>& news_;
  UsageTally* const usage_;
  const text::TextModel& text_model_;
  const Cancellation cancellation_;

  std::vector<int32_t> ids_;  // prompt, then given or generated tokens
  PrefixKeys prefix_keys_;
  std::vector<BlockKey> new_keys_;  // not yet taken
  int64_t fed_ = 0;
  int64_t most_fed_ = 0;  // before it was sent back or started over
  int64_t cached_prompt_tokens_ = 0;
  bool was_sent_back_ = false;
  std::vector<int64_t> rows_;     // intervention rows by active set; empty while none is acquired
  int64_t refused_at_ = -1;       // InterventionTables::given_up when there was no room
  std::vector<int64_t> touched_;  // positions, an intervention
  std::vector<TokenLogprob> scores_;  // of given_response
  size_t first_score_ = 0;            // of the rows that were announced last

  std::optional<Generated> drawn_;  // the next one, not yet accepted
  std::vector<Generated> generated_;
  GeneratedText text_;
  size_t sent_text_ = 0;
  size_t sent_tokens_ = 0;
  int64_t generated_tokens_ = 0;  // sampled, the stop token included
  FinishReason finish_reason_ = FinishReason::kStop;
  bool generating_ = false;
  bool replaying_ = false;  // feeding the returned tokens once more for the taps
  bool starts_over_ = false;
  bool done_ = false;
};

}  // namespace valuescope::engine

#endif  // VALUESCOPE_ENGINE_SEQUENCE_H_
